"""The torch back end's decode, compiled and not, against the float64 reference."""

import math
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.kernels.batch import Cache, Chunk, as_pages
from executor.kernels.decode_layout import DecodeHeads, DecodeLists, lay_out_decode
from executor.kernels.layout import ALL_PIECES
from executor.kernels.torch import compiled
from executor.kernels.torch.decode import decode_attention
from tests.executor.kernels.cpu_cases import (
    DTYPES,
    TOLERANCE,
    UNKNOWN_PAGE,
    by_products,
    strided,
    threads,
    without_strays,
)
from tests.executor.kernels.reference import (
    decode_reference,
    random_cache,
    random_q,
    relative_error,
)


@pytest.fixture
def a_thread_for_every_byte(monkeypatch):
    monkeypatch.setattr(compiled, "LEAST_BYTES", 1)


def random_lists(layout, contexts, seed):
    """As selection would choose them, but by chance, a range of each."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.full((layout.stored,), UNKNOWN_PAGE, dtype=torch.int32)
    first, count = [], []
    for entry, start, budget in zip(
        layout.lists, layout.start.tolist(), layout.budget.tolist(), strict=True
    ):
        blocks = -(-contexts[entry.sequence] // layout.piece_tokens)
        length = min(budget, blocks)
        if start != ALL_PIECES:
            drawn = torch.randperm(blocks, generator=generator)[:length].sort().values
            indices[start : start + length] = drawn.int()
        begin, end = (round(part * length) for part in entry.part)
        first.append(begin)
        count.append(end - begin)
    sizes = (torch.tensor(x, dtype=torch.int32) for x in (first, count))
    return DecodeLists(*sizes, indices)


def decode(q, cache, layout, lists, contexts, count=1, *, lse_read=True):
    """out and lse on `count` threads, NaN where nothing is written."""
    context_tokens = torch.tensor(contexts, dtype=torch.int32)
    out, lse = torch.full_like(q, torch.nan), torch.full(q.shape[:2], torch.nan)
    with threads(count):
        decode_attention(q, cache, layout, lists, context_tokens, out, lse if lse_read else None)
    return out, lse


def check_decode(q, cache, layout, lists, contexts, count=1):
    """Both ways against the reference; what no entry computes must stay as it is. Whether somebody
    reads the log-sum-exp changes nothing."""
    wanted, wanted_lse = decode_reference(
        q, cache, layout, lists, torch.tensor(contexts, dtype=torch.int32)
    )
    computed = torch.zeros(q.shape[:2], dtype=torch.bool)
    for entry in layout.lists:
        computed[list(entry.heads), entry.token] = True
    masked = computed & wanted_lse.isneginf()
    seen = computed & ~masked
    for way in (nullcontext, by_products):
        with way():
            out, lse = decode(q, cache, layout, lists, contexts, count)
            alone, _ = decode(q, cache, layout, lists, contexts, count, lse_read=False)
        assert torch.equal(alone.nan_to_num(7.0), out.nan_to_num(7.0))
        assert out[~computed].isnan().all()
        assert lse[~computed].isnan().all()
        assert (out[masked] == 0).all()
        assert lse[masked].isneginf().all()
        if seen.any():
            assert relative_error(out[seen], wanted[seen]) < TOLERANCE[q.dtype]
            assert relative_error(lse[seen], wanted_lse[seen]) < 1e-5


def decoding(contexts):
    return tuple(Chunk(context - 1, 1) for context in contexts)


@pytest.mark.usefixtures("a_thread_for_every_byte")
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_of_a_batch(dtype, count):
    contexts, block = [1, 16, 100, 333], 16
    entries = [
        DecodeHeads(sequence, sequence, group, heads, budget)
        for sequence in range(len(contexts))
        for group, heads, budget in ((0, (0, 1, 2), 99), (1, (4,), 3), (1, (3, 6), 1))
    ]
    layout = lay_out_decode(entries, 21, block)
    chunks = decoding(contexts)
    cache = random_cache(chunks, 2, 24, block, paged=True, dtype=dtype)
    cache = without_strays(cache, chunks, block)
    lists = random_lists(layout, contexts, seed=0)
    check_decode(random_q(chunks, 7, 24, dtype=dtype), cache, layout, lists, contexts, count)


@pytest.mark.usefixtures("a_thread_for_every_byte")
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    contexts=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    block=st.sampled_from([1, 5, 16]),
    head_dim=st.sampled_from([1, 8, 33, 64, 80, 144]),
    count=st.integers(1, 3),
    per_group=st.integers(1, 8),
    budgets=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    part=st.sampled_from([(0.0, 1.0), (0.0, 0.4), (0.4, 1.0), (0.5, 0.5)]),
    scale=st.sampled_from([1.0, 40.0]),
    seed=st.integers(0, 99),
)
def test_decode_of_anything(
    contexts, block, head_dim, count, per_group, budgets, part, scale, seed
):
    entries = [
        DecodeHeads(
            sequence, sequence, group, (*range(group * per_group, (group + 1) * per_group),),
            budget, part,
        )
        for sequence in range(len(contexts))
        for group, budget in enumerate(budgets)
    ]  # fmt: skip
    most = -(-max(contexts) // block) + 2
    layout = lay_out_decode(entries, most, block)
    chunks = decoding(contexts)
    cache = random_cache(chunks, len(budgets), head_dim, block, paged=True, seed=seed, scale=scale)
    q = random_q(chunks, len(budgets) * per_group, head_dim, seed=seed)
    lists = random_lists(layout, contexts, seed)
    check_decode(q, without_strays(cache, chunks, block), layout, lists, contexts, count)


def test_decode_of_any_strides():
    contexts = [45, 7]
    chunks = decoding(contexts)
    entries = [DecodeHeads(s, s, 0, (1, 0), budget) for s, budget in ((0, 9), (1, 1))]
    layout = lay_out_decode(entries, 3, 16)
    cache = random_cache(chunks, 1, 8, 16, paged=True)
    cache = Cache(strided(cache.keys), strided(cache.values), pages=cache.pages)
    q = strided(random_q(chunks, 2, 8))
    check_decode(q, cache, layout, random_lists(layout, contexts, seed=1), contexts)


@pytest.mark.usefixtures("a_thread_for_every_byte")
@pytest.mark.parametrize("part", [(0.0, 1.0), (0.0, 0.4), (0.4, 1.0)])
@pytest.mark.parametrize("block", [16, 5])
def test_a_contiguous_cache_seen_as_pages(block, part):
    contexts = [333, 100]
    chunks, whole = decoding(contexts), decoding(-(-n // block) * block for n in contexts)
    cache = as_pages(random_cache(whole, 2, 24, block), whole, block)
    pieces = -(-max(contexts) // block)
    entries = [
        DecodeHeads(sequence, sequence, group, (2 * group, 2 * group + 1), pieces, part)
        for sequence in range(len(contexts))
        for group in range(2)
    ]
    layout = lay_out_decode(entries, pieces, block)
    assert (layout.start == ALL_PIECES).all()
    lists = random_lists(layout, contexts, seed=0)
    check_decode(random_q(chunks, 4, 24), cache, layout, lists, contexts)


@pytest.mark.parametrize("per_page", [1, 2, 4])
def test_pages_of_several_pieces(per_page):
    contexts, size = [333, 100, 1], 8
    chunks = decoding(contexts)
    cache = random_cache(chunks, 2, 64, size * per_page, paged=True)
    cache = without_strays(cache, chunks, size * per_page)
    entries = [
        DecodeHeads(s, s, group, (2 * group, 2 * group + 1), 5, (0.0, 0.6))
        for s in range(len(contexts))
        for group in range(2)
    ]
    layout = lay_out_decode(entries, 48, size)
    lists = random_lists(layout, contexts, seed=2)
    check_decode(random_q(chunks, 4, 64), cache, layout, lists, contexts)


@pytest.mark.usefixtures("a_thread_for_every_byte")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_comes_out_and_harms_no_other_list(value, count):
    chunks, contexts = decoding([96]), [96]
    cache = random_cache(chunks, 2, 64, 16, paged=True)
    cache.keys[cache.pages[0, 2], 0, 7, 5] = value
    cache.values[cache.pages[0, 3], 0, 7, 5] = value
    entries = [DecodeHeads(0, 0, group, (group,), 6) for group in range(2)]
    layout = lay_out_decode(entries, 6, 16)
    lists = random_lists(layout, contexts, seed=0)
    out, lse = decode(random_q(chunks, 2, 64).abs(), cache, layout, lists, contexts, count)
    assert not out[0].isfinite().all()
    assert not lse[0].isfinite().all()
    assert out[1].isfinite().all()
    assert lse[1].isfinite().all()


def test_scores_far_below_others_weigh_nothing_and_keep_their_sum():
    chunks, contexts = decoding([64]), [64]
    cache = random_cache(chunks, 1, 16, 16, paged=True)
    layout = lay_out_decode([DecodeHeads(0, 0, 0, (0,), 4)], 4, 16)
    lists = random_lists(layout, contexts, seed=0)
    for scale in (1e4, -1e4):
        cache.keys.copy_(torch.full_like(cache.keys, 1.0))
        cache.keys[cache.pages[0, 1], 0, 3] = scale
        check_decode(torch.ones(1, 1, 16), cache, layout, lists, contexts)


def test_a_piece_that_is_not_there_is_refused():
    chunks, contexts = decoding([64]), [64]
    layout = lay_out_decode([DecodeHeads(0, 0, 0, (0,), 2)], 4, 16)
    cache, q = random_cache(chunks, 1, 16, 16, paged=True), random_q(chunks, 1, 16)
    for way in (nullcontext, by_products):
        for piece in (4, 10**6):
            lists = random_lists(layout, contexts, seed=0)
            lists.indices[1] = piece
            with way(), pytest.raises(IndexError):
                decode(q, cache, layout, lists, contexts)
        table = cache.pages.clone()
        table[:] = len(cache.keys)
        nowhere = Cache(cache.keys, cache.values, pages=table)
        with way(), pytest.raises(IndexError):
            decode(q, nowhere, layout, random_lists(layout, contexts, seed=0), contexts)
