from dataclasses import replace

import pytest
import torch

from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk, query_starts
from executor.kernels.implementation import implementation
from executor.kernels.layout import HeadBlocks
from executor.kernels.means import key_pieces
from executor.kernels.patterns import Rule
from executor.kernels.torch.means import block_means

from .reference import (
    random_cache,
    random_q,
    relative_error,
    sequence_kv,
    transposed_table,
)

BOTH = pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "triton"])
CHUNKS = (Chunk(0, 37), Chunk(19, 14), Chunk(5, 1), Chunk(0, 32))
SIZE, DIM, GROUPS = 8, 16, 2


def split_means(keys, size):
    return torch.stack([part.mean(0) for part in keys.split(size)])


def layout_of(sequences, block=SIZE):
    heads = []
    for s in sequences:
        first, last = CHUNKS[s].cached_tokens // block, -(-CHUNKS[s].total_tokens // block)
        heads.append(HeadBlocks(s % 2, s % 2, 1, first, last, s, Rule.sink_local()))
    return lay_out(heads, CHUNKS, block, piece_tokens=SIZE)


def test_a_short_last_block_and_a_first_one_in_part_are_averaged_over_the_tokens_they_have():
    x = torch.tensor([[1.0], [3.0], [8.0]])
    assert block_means(x, 2).tolist() == [[2.0], [8.0]]
    assert block_means(x, 4).tolist() == [[4.0]]
    assert block_means(x, 4, missing=3).tolist() == [[1.0], [5.5]]
    assert block_means(x, 8, missing=3).tolist() == [[4.0]]
    assert block_means(x[:0], 4).shape == (0, 1)


@BOTH
@pytest.mark.parametrize("per_block", [1, 4])
@pytest.mark.parametrize("per_page", [0, 1, 4])
def test_key_means_hold_every_piece_of_the_computed_sequences_and_nothing_else(
    use_triton, per_page, per_block
):
    cache = random_cache(CHUNKS, GROUPS, DIM, SIZE * per_page, paged=per_page > 0)
    layout = layout_of([0, 1, 3], SIZE * per_block)
    pieces = key_pieces(layout)
    assert pieces.tokens.tolist() == [37, 33, 0, 32]
    assert pieces.start.tolist()[:2] == [0, 5]
    assert pieces.sequence.tolist() == [0] * 5 + [1] * 5 + [3] * 4
    found = implementation(use_triton).key_means(cache, pieces, SIZE)
    assert found.dtype == torch.float32
    for group in range(GROUPS):
        wanted = [
            split_means(sequence_kv(cache, s, group, CHUNKS[s].total_tokens)[0], SIZE)
            for s in (0, 1, 3)
        ]
        assert relative_error(found[group], torch.cat(wanted)) < 1e-6


@BOTH
def test_a_token_major_cache_has_the_same_means(use_triton):
    cache = random_cache(CHUNKS, GROUPS, DIM, SIZE)
    turned = replace(cache, keys=cache.keys.transpose(0, 1).contiguous().transpose(0, 1))
    pieces = key_pieces(layout_of([0, 3]))
    wanted = implementation(use_triton).key_means(cache, pieces, SIZE)
    assert torch.equal(implementation(use_triton).key_means(turned, pieces, SIZE), wanted)


@BOTH
@pytest.mark.parametrize(("dtype", "block"), [(torch.float32, 8), (torch.float16, 16)])
def test_query_means_leave_out_cached_rows(use_triton, dtype, block):
    q = random_q(CHUNKS, 2, DIM, dtype=dtype)
    layout = layout_of([3, 1, 0, 2], block)
    found = implementation(use_triton).query_means(q, layout, 1, 4)
    starts = query_starts(CHUNKS)
    wanted, stored = [], layout.start[32 // block :] >= 0
    for s in (1, 0, 2):
        chunk = CHUNKS[s]
        by_block: dict[int, list[torch.Tensor]] = {}
        for i in range(chunk.new_tokens):
            row = by_block.setdefault((chunk.cached_tokens + i) // block, [])
            row.append(q[s % 2, starts[s] + i].double())
        wanted += [torch.stack(rows).mean(0) for rows in by_block.values()]
    assert found.dtype == torch.float32
    assert stored.sum() >= 3
    assert relative_error(found[stored], torch.stack(wanted)[stored]) < 1e-6


@BOTH
def test_the_pages_of_a_table_may_have_any_stride(use_triton):
    cache = random_cache(CHUNKS, GROUPS, DIM, SIZE, paged=True)
    turned = transposed_table(cache)
    assert turned.pages.stride(1) == len(CHUNKS)
    pieces = key_pieces(layout_of([0, 1, 2, 3]))
    wanted = implementation(False).key_means(cache, pieces, SIZE)
    assert relative_error(implementation(use_triton).key_means(turned, pieces, SIZE), wanted) < 1e-6
