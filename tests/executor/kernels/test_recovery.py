import math
from dataclasses import replace

import pytest
import torch

from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Rule
from executor.kernels.recovery import decode_recovery, head_recovery, recovery, sampled_rows
from executor.kernels.select_decode import select_decode

from .reference import (
    decode_reference,
    list_of,
    prefill_reference,
    random_cache,
    random_indices,
    random_q,
    sequence_kv,
    transposed_table,
)

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero")
BOTH = pytest.mark.parametrize("use_triton", [False, True], ids=["torch", "triton"])
SIZE, DIM = 8, 16
CHUNKS = (Chunk(0, 61), Chunk(21, 20), Chunk(0, 1))
HEADS = [
    HeadBlocks(0, 0, 2, 0, 8, 0),
    HeadBlocks(1, 0, 3, 3, 7, 0, Rule.sink_local()),
    HeadBlocks(2, 1, 1, 2, 6, 1),
    HeadBlocks(3, 1, 9, 0, 8, 0),
    HeadBlocks(0, 1, 1, 0, 1, 2),
    HeadBlocks(0, 1, 1, 3, 3, 1),
]


def captured(q, keys, chosen, token):
    """The share of the dense softmax of row `token` that the chosen pieces hold."""
    weights = (keys[: token + 1] @ q.double() / math.sqrt(DIM)).softmax(0)
    return sum(float(weights[p * SIZE : (p + 1) * SIZE].sum()) for p in chosen)


@BOTH
@pytest.mark.parametrize(("per_block", "per_page"), [(1, 0), (1, 1), (2, 0), (2, 4)])
@pytest.mark.parametrize("samples", [1, 5, 20])
def test_recovery_is_the_mass_of_the_chosen_pieces_in_the_sampled_rows(
    use_triton, per_block, per_page, samples
):
    q = random_q(CHUNKS, 4, DIM, scale=2)
    cache = random_cache(CHUNKS, 2, DIM, SIZE * per_page, paged=per_page > 0)
    block = SIZE * per_block
    heads = [
        replace(rows, first=rows.first // per_block, last=-(-rows.last // per_block))
        for rows in HEADS[:-1]
    ] + HEADS[-1:]
    layout = lay_out(heads, CHUNKS, block, piece_tokens=SIZE)
    indices = random_indices(layout)
    lse = prefill_reference(q, cache, layout, indices)[1].float()
    found = recovery(q, cache, layout, lse, samples, use_triton=use_triton)
    assert found.dtype == torch.float32
    numbers = {
        (int(e), int(r)): n
        for n, (e, r) in enumerate(zip(layout.entry, layout.query_block, strict=True))
    }
    for entry, rows in enumerate(heads):
        head, group, sequence, origin, cached, total = layout.entries[entry].tolist()
        keys, _ = sequence_kv(cache, sequence, group, total)
        begin, end = max(cached, rows.first * block), min(total, rows.last * block)
        shares = [1.0] if begin >= end else []
        for i in range(samples if begin < end else 0):
            place = (i + (i + 0.5) * (1 + 5**0.5) / 2 % 1) / samples
            token = begin + math.floor(place * (end - begin))
            chosen = list_of(layout, indices, numbers[entry, token // block])
            shares.append(captured(q[head, origin + token], keys, chosen, token))
        assert float(found[entry]) == pytest.approx(sum(shares) / len(shares), rel=1e-5)
    assert found[3:].tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)
    assert float(found[:3].max()) < 0.999


def test_sampled_rows_are_spread_evenly_over_the_computed_ones():
    layout = lay_out(HEADS, CHUNKS, SIZE)
    assert sampled_rows(layout, 4).position.tolist() == [
        [12, 21, 31, 55],
        [30, 35, 40, 53],
        [25, 28, 31, 39],
        [12, 21, 31, 55],
        [0, 0, 0, 0],
        [-1, -1, -1, -1],
    ]


def test_sampled_rows_lie_at_many_places_of_their_blocks():
    """Rows at one place would all, or none, see the token before them in their own block."""
    chunks = (Chunk(0, 2048),)
    layout = lay_out((HeadBlocks(0, 0, 1, 0, 128),), chunks, 16)
    places = (sampled_rows(layout, 32).position[0] % 16).tolist()
    assert max(places.count(place) for place in range(16)) <= 4
    assert len(set(places)) >= 12


@BOTH
@pytest.mark.parametrize("per_page", [1, 2])
def test_decode_recovery_is_the_mass_of_the_part_and_parts_add_up(use_triton, per_page):
    chunks = (Chunk(60, 1), Chunk(30, 1), Chunk(0, 1))
    q = random_q(chunks, 5, DIM, scale=2)
    cache = random_cache(chunks, 2, DIM, SIZE * per_page, paged=True)
    context = torch.tensor([61, 31, 1], dtype=torch.int32)
    lists = [
        DecodeHeads(0, 0, 0, (0, 1, 2), 3),
        DecodeHeads(0, 0, 1, (3,), 5, (0.0, 0.5)),
        DecodeHeads(0, 0, 1, (4,), 8),
        DecodeHeads(1, 1, 0, (4, 2), 2),
        DecodeHeads(2, 2, 1, (0,), 1),
        DecodeHeads(1, 1, 1, (0,), 2, (0.4, 0.4)),
    ]
    layout = lay_out_decode(lists, 8, SIZE)
    chosen = select_decode(q, page_bounds(cache, context, SIZE), cache, layout, context)
    lse = decode_reference(q, cache, layout, chosen, context)[1].float()
    found = decode_recovery(q, cache, layout, context, lse, use_triton=use_triton)
    of_heads = head_recovery(q, cache, layout, context, lse, use_triton=use_triton)
    for number, entry in enumerate(lists):
        total = int(context[entry.sequence])
        keys, _ = sequence_kv(cache, entry.sequence, entry.group, total)
        first, count = int(chosen.first[number]), int(chosen.count[number])
        start = int(layout.start[number])
        listed = range(8) if start < 0 else chosen.indices[start:].tolist()
        pieces = listed[first : first + count]
        shares = [captured(q[h, entry.token], keys, pieces, total - 1) for h in entry.heads]
        assert float(found[number]) == pytest.approx(sum(shares) / len(shares), rel=1e-5, abs=1e-7)
        apart = shares + [1.0] * (of_heads.shape[1] - len(shares))
        assert of_heads[number].tolist() == pytest.approx(apart, rel=1e-5, abs=1e-7)
    assert found[2] == pytest.approx(1.0, abs=1e-6)
    assert found[5] == 0.0


@BOTH
def test_the_pages_of_a_table_may_have_any_stride(use_triton):
    q = random_q(CHUNKS, 4, DIM)
    cache = random_cache(CHUNKS, 2, DIM, SIZE, paged=True)
    layout = lay_out(HEADS, CHUNKS, SIZE)
    lse = prefill_reference(q, cache, layout, random_indices(layout))[1].float()
    wanted = recovery(q, cache, layout, lse, 5, use_triton=False)
    found = recovery(q, transposed_table(cache), layout, lse, 5, use_triton=use_triton)
    assert torch.allclose(found, wanted, rtol=1e-5)
