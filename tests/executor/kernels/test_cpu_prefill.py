"""The torch back end's prefill against the float64 reference."""

import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.attention.lists import lay_out
from executor.kernels.batch import Cache, Chunk, as_pages
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import POOLED, Rule, by_budget
from executor.kernels.scores import QueryRows
from executor.kernels.torch.prefill import prefill_attention
from executor.kernels.torch.scores import piece_lse
from executor.kernels.torch.threads import in_threads, tasks_at_once
from tests.executor.kernels.cpu_cases import (
    DTYPES,
    TOLERANCE,
    shorten_steps,
    strided,
    threads,
    without_strays,
)
from tests.executor.kernels.reference import (
    prefill_reference,
    random_cache,
    random_indices,
    random_q,
    relative_error,
    whole_prompts,
)

MIXED = (Chunk(0, 70), Chunk(37, 50), Chunk(160, 1), Chunk(5, 3), Chunk(64, 77), Chunk(0, 1))


@pytest.fixture
def small_steps(monkeypatch):
    shorten_steps(monkeypatch)


def every_row(chunks, block, budgets, per_group=1, pattern=POOLED):
    """Head h of every sequence, all query blocks that a chunk touches, with budgets[h] blocks."""
    return [
        HeadBlocks(
            head,
            head // per_group,
            budget,
            chunk.cached_tokens // block,
            -(-chunk.total_tokens // block),
            sequence,
            pattern,
        )
        for sequence, chunk in enumerate(chunks)
        for head, budget in enumerate(budgets)
    ]


def check_prefill(q, cache, layout, indices, count=1):
    """On `count` threads: rows against the reference; those of no list must stay as they are."""
    out = torch.full_like(q, torch.nan)
    lse = torch.full(q.shape[:2], torch.nan)
    with threads(count):
        prefill_attention(q, cache, layout, indices, out, lse)
    wanted, wanted_lse = prefill_reference(q, cache, layout, indices)
    computed = torch.zeros(q.shape[:2], dtype=torch.bool)
    for number in range(layout.lists):
        head, _, _, origin, cached, total = layout.entries[layout.entry[number]].tolist()
        first = int(layout.query_block[number]) * layout.block_tokens
        last = min(first + layout.block_tokens, total)
        computed[head, origin + max(first, cached) : max(origin + last, 0)] = True
    assert out[~computed].isnan().all()
    assert lse[~computed].isnan().all()
    masked = computed & wanted_lse.isneginf()
    assert (out[masked] == 0).all()
    assert lse[masked].isneginf().all()
    seen = computed & ~masked
    if seen.any():
        assert relative_error(out[seen], wanted[seen]) < TOLERANCE[q.dtype]
        assert relative_error(lse[seen], wanted_lse[seen]) < 1e-5
    return out, lse


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_prefill_of_a_mixed_step(dtype, paged, count):
    heads = every_row(MIXED, 16, [99, 3, 1, 0, 6], per_group=2)
    layout = lay_out(heads, MIXED, 16)
    cache = random_cache(MIXED, 3, 24, 16, paged=paged, dtype=dtype)
    cache = without_strays(cache, MIXED, 16)
    q = random_q(MIXED, 6, 24, dtype=dtype)
    check_prefill(q, cache, layout, random_indices(layout), count)


@pytest.mark.usefixtures("small_steps")
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    chunks=st.lists(
        st.builds(Chunk, st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=3
    ).map(tuple),
    sizes=st.sampled_from([(1, 1), (4, 4), (7, 7), (16, 16), (16, 4), (6, 2), (32, 16)]),
    pieces_a_page=st.integers(1, 5),
    head_dim=st.sampled_from([1, 8, 20, 33]),
    per_group=st.integers(1, 8),
    budgets=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    pattern=st.sampled_from([POOLED, Rule.strided(1, 2), Rule.strided(2, 3, 1)]),
    paged=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_prefill_of_anything(
    chunks, sizes, pieces_a_page, head_dim, per_group, budgets, pattern, paged, seed, data
):
    heads, (block, piece) = [], sizes
    if block != piece and not by_budget(pattern):
        pattern = POOLED
    for rows in every_row(chunks, block, budgets, per_group, pattern):
        cut = sorted(
            data.draw(st.lists(st.integers(rows.first, rows.last), min_size=2, max_size=2))
        )
        heads.append(
            HeadBlocks(rows.head, rows.group, rows.budget_pieces, *cut, rows.sequence, pattern)
        )
    layout = lay_out(heads, chunks, block, piece_tokens=piece)
    groups = -(-len(budgets) // per_group)
    page = piece * pieces_a_page
    cache = random_cache(chunks, groups, head_dim, page, paged=paged, seed=seed)
    q = random_q(chunks, len(budgets), head_dim, seed=seed)
    check_prefill(q, without_strays(cache, chunks, page), layout, random_indices(layout, seed))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("cached", [0, 300])
def test_long_dense_rows_are_strips(cached, count):
    """More new tokens than a strip has."""
    chunks = (Chunk(cached, 1100),)
    layout = lay_out(every_row(chunks, 64, [99]), chunks, 64)
    cache = random_cache(chunks, 1, 8, 64)
    check_prefill(random_q(chunks, 1, 8), cache, layout, random_indices(layout), count)


@pytest.mark.parametrize("paged", [False, True])
def test_prefill_of_large_logits(paged):
    chunks = (Chunk(20, 90),)
    layout = lay_out(every_row(chunks, 16, [99, 3]), chunks, 16)
    cache = random_cache(chunks, 2, 16, 16, paged=paged, scale=40.0)
    check_prefill(random_q(chunks, 2, 16, scale=40.0), cache, layout, random_indices(layout))


def test_paged_equals_contiguous_and_neither_reads_what_lies_behind():
    chunks = (Chunk(0, 50), Chunk(10, 43))
    layout = lay_out(every_row(chunks, 16, [9, 2]), chunks, 16)
    keys, values = torch.randn(2, 2, 128, 8)
    for x in (keys, values):
        x[:, 50:64] = torch.nan
        x[:, 64 + 53 :] = torch.nan
    cache = Cache(keys, values, starts=torch.tensor([0, 64], dtype=torch.int32))
    q, indices = random_q(chunks, 2, 8), random_indices(layout)
    contiguous = check_prefill(q, cache, layout, indices)
    paged = check_prefill(q, as_pages(cache, chunks, 16), layout, indices)
    for found, wanted in zip(paged, contiguous, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_what_no_list_names_stays_out():
    """Where a short last block is gathered, nothing stands in for its missing tokens."""
    chunks = (Chunk(0, 40),)
    layout = lay_out([HeadBlocks(0, 0, 2, 2, 3)], chunks, 16)
    for paged in (False, True):
        cache = random_cache(chunks, 1, 8, 16, paged=paged)
        unnamed = (0, slice(16, 32)) if cache.pages is None else (int(cache.pages[0, 1]),)
        cache.keys[unnamed] = cache.values[unnamed] = torch.nan
        check_prefill(random_q(chunks, 1, 8), cache, layout, torch.tensor([0, 2]).int())


@pytest.mark.parametrize("paged", [False, True])
def test_prefill_of_any_strides(paged):
    layout = lay_out(every_row(MIXED, 16, [99, 3, 0]), MIXED, 16)
    cache = random_cache(MIXED, 3, 8, 16, paged=paged)
    cache = Cache(strided(cache.keys), strided(cache.values), cache.starts, cache.pages)
    q, indices = strided(random_q(MIXED, 3, 8)), random_indices(layout)
    wanted, wanted_lse = check_prefill(q, cache, layout, indices)
    out, lse = strided(torch.full_like(wanted, 7)), strided(torch.full_like(wanted_lse, 7))
    prefill_attention(q, cache, layout, indices, out, lse)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(lse, wanted_lse)


def test_nothing_to_prefill():
    chunks = whole_prompts(40)
    layout = lay_out([], chunks, 16)
    check_prefill(
        random_q(chunks, 1, 8), random_cache(chunks, 1, 8, 16), layout, random_indices(layout)
    )


def test_work_is_the_tiles_of_the_lists(monkeypatch):
    """Products over lists with indices are as many as their tiles."""
    products = 0

    def counting(product):
        def counted(*tensors, **options):
            nonlocal products
            rows, columns = tensors[-2:]
            products += rows.numel() * columns.shape[2]
            return product(*tensors, **options)

        return counted

    for name in ("bmm", "baddbmm"):
        monkeypatch.setattr(torch, name, counting(getattr(torch, name)))
    chunks = (Chunk(320, 200),)
    layout = lay_out(every_row(chunks, 16, [1, 3, 8]), chunks, 16)
    check_prefill(
        random_q(chunks, 3, 8), random_cache(chunks, 3, 8, 16), layout, random_indices(layout)
    )
    assert products == 2 * layout.tiles * 16 * 16 * 8


def test_a_row_sees_nothing_of_an_overflowing_key_ahead_of_it():
    """In its own block, where scores are computed that the causal mask takes away."""
    chunks = whole_prompts(64)
    layout = lay_out([HeadBlocks(0, 0, 2, 0, 4)], chunks, 16)
    q, cache = random_q(chunks, 1, 8), random_cache(chunks, 1, 8, 16)
    indices, out, lse = random_indices(layout), torch.empty_like(q), torch.empty(1, 64)
    cache.keys[0, 63] = 3e38
    prefill_attention(q * 1e3, cache, layout, indices, out, lse)
    wanted, wanted_lse = prefill_reference(q * 1e3, cache, layout, indices)
    assert relative_error(out[:, :63], wanted[:, :63]) < 1e-5
    assert relative_error(lse[:, :63], wanted_lse[:, :63]) < 1e-5


@pytest.mark.parametrize("shift", [-300.0, -40.0, 40.0, 300.0])
def test_scores_far_from_zero_lose_nothing(shift):
    """Their exponentials are no numbers, or none that may be added up."""
    chunks = whole_prompts(100)
    layout = lay_out(every_row(chunks, 16, [9, 3, 2]), chunks, 16)
    q, cache = random_q(chunks, 3, 16), random_cache(chunks, 3, 16, 16)
    q[..., 0], cache.keys[..., 0] = 4.0, shift
    indices, out, lse = random_indices(layout), torch.empty_like(q), torch.empty(3, 100)
    prefill_attention(q, cache, layout, indices, out, lse)
    wanted, wanted_lse = prefill_reference(q, cache, layout, indices)
    # As exact as scores of such a size are.
    assert relative_error(out, wanted) < 1e-4
    assert relative_error(lse, wanted_lse) < 1e-5
    position = torch.tensor([[5, 40, 99]] * 3, dtype=torch.int32)
    entries = torch.tensor([[h, h, 0, 0, 0, 100] for h in range(3)], dtype=torch.int32)
    found = piece_lse(q, cache, QueryRows.at(entries, position), 16, 7)
    for head in range(3):
        for row, at in enumerate(position[0].tolist()):
            keys = cache.keys[head, : at + 1].double()
            parts = (keys @ q[head, at].double() / 4).split(16)
            wanted = torch.stack([part.logsumexp(0) for part in parts])
            assert torch.allclose(found[head, row, : len(parts)].double(), wanted, atol=1e-3)
            assert found[head, row, len(parts) :].isneginf().all()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_threads_write_what_was_made_in_the_callers_mode(mode):
    chunks = whole_prompts(40)
    layout = lay_out(every_row(chunks, 16, [9, 2]), chunks, 16)
    with mode():
        cache = random_cache(chunks, 2, 8, 16)
        check_prefill(random_q(chunks, 2, 8), cache, layout, random_indices(layout), 2)


def test_threads_that_an_engine_has_bound_share_every_task(monkeypatch):
    """vLLM's CPU worker has replaced `torch.set_num_threads` by a function that warns."""
    asked, used = [], []

    def work(number):
        used.append(threading.current_thread())
        return 2 * number

    chunks = whole_prompts(40)
    layout = lay_out(every_row(chunks, 16, [9, 2]), chunks, 16)
    q, cache = random_q(chunks, 2, 8), random_cache(chunks, 2, 8, 16)
    indices, out, lse = random_indices(layout), torch.empty_like(q), torch.empty(2, 40)
    with threads(2), monkeypatch.context() as engine:
        engine.setattr(torch, "set_num_threads", asked.append)
        assert tasks_at_once() == 1
        assert in_threads(work, [3, 1, 2]) == [6, 2, 4]
        assert set(used) == {threading.current_thread()}
        prefill_attention(q, cache, layout, indices, out, lse)
        assert torch.get_num_threads() == 2
    assert not asked
    wanted, _ = prefill_reference(q, cache, layout, indices)
    assert relative_error(out, wanted) < 1e-5


def test_a_failing_thread_is_heard():
    with threads(2), pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 / number, [1, 0, 2])
