"""Decode against the float64 reference, in Triton's interpreter."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.kernels.batch import Cache, Chunk, as_pages
from executor.kernels.decode_layout import PADDING, DecodeHeads, DecodeLists, lay_out_decode
from executor.kernels.layout import ALL_PIECES
from executor.kernels.triton.decode import decode_attention
from tests.executor.kernels.merged import merge
from tests.executor.kernels.reference import (
    decode_reference,
    random_cache,
    random_q,
    relative_error,
)

BLOCK = 16
MOST_BLOCKS = 8
# A row without keys has the logarithm of 0 for its log-sum-exp.
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}


def decoding(*contexts):
    """One new token per sequence, after everything else."""
    return tuple(Chunk(context - 1, 1) for context in contexts)


def contexts_of(chunks):
    return torch.tensor([chunk.total_tokens for chunk in chunks], dtype=torch.int32)


def random_lists(layout, chunks, *, seed=0, with_last=True):
    """As selection would choose them, but by chance: ascending blocks that hold a token."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.full((layout.stored,), 10**6, dtype=torch.int32)
    first, count = [], []
    for entry, start in zip(layout.lists, layout.start.tolist(), strict=True):
        blocks = -(-chunks[entry.sequence].total_tokens // layout.piece_tokens)
        length = min(entry.budget_pieces, blocks)
        if start != ALL_PIECES:
            drawn = torch.randperm(blocks - (not with_last), generator=generator)[:length]
            length = len(drawn)
            indices[start : start + length] = drawn.sort().values
        begin, end = (math.floor(part * length + 0.5) for part in entry.part)
        first.append(begin)
        count.append(end - begin)
    return DecodeLists(
        torch.tensor(first, dtype=torch.int32), torch.tensor(count, dtype=torch.int32), indices
    )


def run(q, cache, layout, lists, contexts, sms=2):
    """out and lse, NaN wherever decode writes nothing."""
    out = torch.full_like(q, torch.nan)
    lse = torch.full(q.shape[:2], torch.nan)
    decode_attention(q, cache, layout, lists, contexts, out, lse, sms=sms)
    return out, lse


def check(q, cache, layout, lists, contexts, sms=2):
    """Compares with the reference, row by row, and returns what was found."""
    out, lse = run(q, cache, layout, lists, contexts, sms)
    wanted, wanted_lse = decode_reference(q, cache, layout, lists, contexts)
    tolerance = TOLERANCE[q.dtype]
    computed = {(head, entry.token) for entry in layout.lists for head in entry.heads}
    for head in range(q.shape[0]):
        for token in range(q.shape[1]):
            at = (head, token)
            if at not in computed:
                assert out[at].isnan().all()
                assert lse[at].isnan()
            elif wanted_lse[at] == -math.inf:
                assert (out[at] == 0).all()
                assert lse[at] == -math.inf
            else:
                assert relative_error(out[at], wanted[at]) < tolerance, at
                assert abs(lse[at] - wanted_lse[at]) < tolerance * max(1, abs(wanted_lse[at])), at
    return out, lse


def case(chunks, lists, heads, groups, *, head_dim=16, dtype=torch.float32, scale=1.0, block=BLOCK):
    """q, paged cache, layout, lists and contexts."""
    layout = lay_out_decode(lists, MOST_BLOCKS, block)
    q = random_q(chunks, heads, head_dim, dtype=dtype, scale=scale)
    cache = random_cache(chunks, groups, head_dim, block, paged=True, dtype=dtype, scale=scale)
    return q, cache, layout, random_lists(layout, chunks), contexts_of(chunks)


RAGGED = decoding(1, 33, 64, 128, 17)
"""One token, a token into a block, whole blocks, all the room there is."""


def ragged_lists(packed, budget):
    """Every sequence and two groups of `packed` heads; the third sequence stays out."""
    return [
        DecodeHeads(s, s, g, tuple(range(g * packed, (g + 1) * packed)), budget)
        for s in (3, 0, 4, 1)
        for g in range(2)
    ]


@pytest.mark.parametrize("packed", [1, 3, 8])
@pytest.mark.parametrize("budget", [3, MOST_BLOCKS])
def test_equals_the_reference_on_ragged_contexts(packed, budget):
    check(*case(RAGGED, ragged_lists(packed, budget), 2 * packed, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("head_dim", "block"), [(32, 16), (64, 32), (128, 128)])
def test_equals_the_reference_in_every_dtype_and_shape(dtype, head_dim, block):
    # 4 bytes x 128 dimensions x 128 tokens are more than a tile: a block is read in parts, the
    # last of them behind the end.
    chunks = decoding(2 * block + 1, block)
    lists = [DecodeHeads(0, 0, 1, (2, 3), 2), DecodeHeads(1, 1, 0, (0,), MOST_BLOCKS)]
    check(*case(chunks, lists, 4, 2, head_dim=head_dim, dtype=dtype, block=block))


def test_a_part_of_a_block_without_a_token_is_a_piece_without_keys():
    chunks = decoding(1)
    q, cache, layout, lists, contexts = case(
        chunks, [DecodeHeads(0, 0, 0, (0,), 1)], 1, 1, head_dim=128, block=128
    )
    check(q, cache, layout, lists, contexts, sms=2)


def test_large_logits():
    q, *rest = case(RAGGED, ragged_lists(2, 4), 4, 2, scale=60.0)
    check(q, *rest)


def test_more_heads_in_a_group_than_one_tile_of_sixteen():
    check(*case(decoding(40, 20), [DecodeHeads(1, 1, 0, tuple(range(17)), 2)], 18, 1))


def test_entries_with_different_numbers_of_heads_share_a_layout():
    chunks = decoding(50, 70)
    lists = [DecodeHeads(0, 0, 0, (4,), 2), DecodeHeads(1, 1, 1, (0, 3, 2), 3)]
    _, _, layout, *_ = given_case = case(chunks, lists, 5, 2)
    assert PADDING in layout.heads
    check(*given_case)


def test_empty_lists_before_between_and_behind_others():
    q, cache, layout, lists, contexts = case(RAGGED, ragged_lists(1, 4), 2, 2)
    empty = torch.tensor([1, 0, 1, 1, 0, 0, 0, 1], dtype=torch.bool)
    for emptied in (empty, ~empty, torch.ones_like(empty)):
        fewer = replace(lists, count=lists.count.masked_fill(emptied, 0))
        for sms in (1, 3):
            check(q, cache, layout, fewer, contexts, sms)


def test_no_entries_write_nothing():
    check(*case(decoding(5), [], 2, 1))


def test_lists_that_leave_out_the_last_block():
    q, cache, layout, _, contexts = case(RAGGED, ragged_lists(1, 4), 2, 2)
    lists = random_lists(layout, RAGGED, with_last=False)
    assert lists.count.tolist() == [4, 4, 0, 0, 1, 1, 2, 2]
    check(q, cache, layout, lists, contexts)


def test_any_number_of_programs_gives_the_same():
    inputs = case(RAGGED, ragged_lists(1, 6), 2, 2)
    unsplit, unsplit_lse = run(*inputs, sms=1)
    computed = ~unsplit_lse.isnan()
    for sms in (2, 9):
        out, lse = run(*inputs, sms=sms)
        assert torch.allclose(out[computed], unsplit[computed], rtol=0, atol=1e-6)
        assert torch.allclose(lse[computed], unsplit_lse[computed], rtol=1e-6, atol=1e-6)


def test_equal_inputs_give_equal_bits():
    inputs = case(RAGGED, ragged_lists(1, 6), 2, 2)
    for first, second in zip(run(*inputs), run(*inputs), strict=True):
        assert torch.equal(first.nan_to_num(7.0), second.nan_to_num(7.0))


def test_packed_heads_equal_single_ones_with_the_same_list():
    chunks = decoding(100)
    q, cache, layout, lists, contexts = case(chunks, [DecodeHeads(0, 0, 1, (5, 2, 3), 4)], 6, 2)
    packed, packed_lse = check(q, cache, layout, lists, contexts)
    singly = lay_out_decode([DecodeHeads(0, 0, 1, (h,), 4) for h in (5, 2, 3)], MOST_BLOCKS, BLOCK)
    repeated = DecodeLists(
        lists.first.repeat(3), lists.count.repeat(3), lists.indices[: layout.stored].repeat(3)
    )
    out, lse = check(q, cache, singly, repeated, contexts)
    rows = [2, 3, 5]
    assert torch.allclose(out[rows], packed[rows], rtol=0, atol=1e-6)
    assert torch.allclose(lse[rows], packed_lse[rows], rtol=0, atol=1e-6)


@pytest.mark.parametrize("budget", [5, MOST_BLOCKS])
def test_parts_of_a_list_merge_to_the_whole(budget):
    chunks = decoding(90, 10)
    q, cache, layout, lists, contexts = case(
        chunks, [DecodeHeads(s, s, 0, (0, 1), budget) for s in range(2)], 2, 1
    )
    whole, whole_lse = check(q, cache, layout, lists, contexts)
    parts = []
    for part in ((0.0, 0.3), (0.3, 1.0)):
        shares = lay_out_decode([replace(e, part=part) for e in layout.lists], MOST_BLOCKS, BLOCK)
        parts.append(check(q, cache, shares, random_lists(shares, chunks), contexts))
    assert (parts[0][1][:, 1] == -math.inf).all()
    out, lse = merge(*(torch.stack(x) for x in zip(*parts, strict=True)))
    assert torch.allclose(out, whole, rtol=0, atol=1e-6)
    assert torch.allclose(lse, whole_lse, rtol=0, atol=1e-6)


def test_a_layout_serves_a_growing_sequence():
    lists = [DecodeHeads(s, s, 0, (0, 1), 3) for s in range(2)]
    layout = lay_out_decode(lists, MOST_BLOCKS, BLOCK)
    for grown in range(3):
        chunks = decoding(31 + grown, 16 + grown)
        q, cache, _, drawn, contexts = case(chunks, lists, 2, 1)
        check(q, cache, layout, drawn, contexts)


def test_a_contiguous_cache_seen_as_pages():
    chunks = decoding(48, 32)
    q, paged, layout, lists, contexts = case(chunks, [DecodeHeads(1, 1, 0, (0,), 2)], 1, 1)
    contiguous = random_cache(chunks, 1, 16, BLOCK)
    seen = as_pages(contiguous, chunks, BLOCK)
    out, lse = check(q, seen, layout, lists, contexts)
    same, same_lse = run(q, paged, layout, lists, contexts)
    assert torch.equal(out[0, 1], same[0, 1])
    assert torch.equal(lse[0, 1], same_lse[0, 1])


def test_any_strides():
    q, cache, layout, lists, contexts = case(RAGGED, ragged_lists(2, 4), 4, 2)
    apart = Cache(
        cache.keys.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        cache.values.transpose(1, 2).contiguous().transpose(1, 2),
        pages=cache.pages.T.contiguous().T,
    )
    check(q.transpose(0, 1).contiguous().transpose(0, 1), apart, layout, lists, contexts)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_whatever_the_contexts_parts_and_programs(data):
    contexts = data.draw(st.lists(st.integers(1, MOST_BLOCKS * BLOCK), min_size=1, max_size=4))
    parts = st.tuples(st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([0.5, 0.7, 1.0]))
    lists = [
        DecodeHeads(s, s, g, (g,), data.draw(st.integers(1, MOST_BLOCKS)), data.draw(parts))
        for s in range(len(contexts))
        for g in range(2)
    ]
    check(*case(decoding(*contexts), lists, 2, 2), sms=data.draw(st.integers(1, 6)))
