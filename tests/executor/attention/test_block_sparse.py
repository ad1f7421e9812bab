"""The entry point, on both back ends: prompts, chunks, decodes and all of them at once."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.attention import block_sparse
from executor.attention.backends import resolve_backend
from executor.attention.block_sparse import attend
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.kernels.batch import Cache, Chunk
from executor.kernels.bounds import page_bounds
from executor.kernels.dense import dense_attention
from executor.kernels.patterns import POOLED, Rule, VerticalSlash
from tests.executor.kernels.merged import merge
from tests.executor.kernels.reference import (
    contexts,
    decode_reference,
    prefill_reference,
    random_cache,
    random_q,
    relative_error,
    sequence_kv,
)

backends = pytest.mark.parametrize("backend", ["torch", "triton"])
MIXED = (Chunk(0, 70), Chunk(50, 1, True), Chunk(40, 33), Chunk(90, 1, True))


def wanted(q, cache, step, result):
    """The definition, over the lists the result says it used."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    lse = torch.full(q.shape[:2], -torch.inf, dtype=torch.float64)
    if step.prefill is not None:
        out, lse = prefill_reference(q, cache, step.prefill, result.indices)
    if step.decode is not None:
        more = decode_reference(q, cache, step.decode, result.lists, step.context_tokens)
        done = more[1].isfinite()
        out[done], lse[done] = more[0][done], more[1][done]
    return out, lse


def assert_right(q, cache, step, result):
    out, lse = wanted(q, cache, step, result)
    done = lse.isfinite()
    assert torch.equal(result.lse.isfinite(), done)
    assert (result.lse[~done] == -torch.inf).all()
    assert (result.out[~done] == 0).all()
    assert relative_error(result.out, out) < 1e-5
    assert torch.allclose(result.lse[done].double(), lse[done], atol=1e-5)


@backends
def test_shares_and_patterns_of_a_prompt(backend):
    chunks = [Chunk(0, 150)]
    q, cache = random_q(chunks, 5, 32), random_cache(chunks, 2, 32, 16)
    shares = [
        HeadShare(0, 0, 40),
        HeadShare(1, 0, 10_000),
        HeadShare(2, 1, 1, (0.25, 1.0)),
        HeadShare(3, 1, 64, (0.0, 0.5), pattern=VerticalSlash()),
        HeadShare(3, 1, 48, (0.5, 1.0), pattern=Rule.sink_local()),
        HeadShare(4, 0, 48, pattern=Rule.strided(2, 3)),
    ]
    step = prepare(shares, chunks, 16)
    result = attend(q, cache, step, backend)
    assert_right(q, cache, step, result)
    assert result.counts.tiles == int(step.prefill.length.sum())


@backends
def test_a_mixed_step_is_its_parts_apart(backend):
    q, cache = random_q(MIXED, 4, 32), random_cache(MIXED, 2, 32, 16, paged=True)
    shares = [HeadShare(h, h // 2, 32 + 16 * h, sequence=s) for s in range(4) for h in range(4)]
    step = prepare(shares, MIXED, 16)
    together = attend(q, cache, step, backend)
    assert_right(q, cache, step, together)
    starts = np.cumsum([0, *(chunk.new_tokens for chunk in MIXED)])
    for sequence, (chunk, (first, last)) in enumerate(zip(MIXED, pairwise(starts), strict=True)):
        alone = prepare([HeadShare(h, h // 2, 32 + 16 * h) for h in range(4)], [chunk], 16)
        pages = cache.pages[sequence : sequence + 1]
        one = attend(q[:, first:last], Cache(cache.keys, cache.values, pages=pages), alone, backend)
        assert torch.allclose(one.out, together.out[:, first:last], atol=1e-6)
        assert torch.allclose(one.lse, together.lse[:, first:last], atol=1e-6)


@backends
@pytest.mark.parametrize(("block", "page"), [(64, 16), (128, 64)])
def test_block_means_choose_pieces_of_16_under_longer_query_blocks(backend, block, page):
    own = block // 16
    chunks = (Chunk(0, 3 * block + 37), Chunk(block + 5, block), Chunk(330, 1, True))
    q = random_q(chunks, 2, 16, scale=2)
    cache = random_cache(chunks, 2, 16, page, paged=True, scale=2)
    shares = [
        HeadShare(head, head, budget, sequence=sequence, pattern=POOLED)
        for sequence in range(3)
        for head, budget in enumerate((16 * (own + 3) - 5, 10_000))
    ]
    step = prepare(shares, chunks, block, piece_tokens=16)
    result = attend(q, cache, step, backend)
    assert_right(q, cache, step, result)
    assert step.prefill.length[:4].tolist() == [own, own + 3, own + 3, own + 3]
    torched = attend(q, cache, step, "torch")
    assert torch.equal(result.indices, torched.indices)
    assert torch.equal(result.lists.indices, torched.lists.indices)
    # A prompt of 3 blocks and 3 pieces, a chunk in its second and third block, which has a piece,
    # and 21 pieces of a decode.
    candidates = (1 + 2 + 3 + 3) * own + 3 + 2 * own + 2 * own + 1 + 21
    assert result.counts.scored_pieces == candidates


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 100),
    st.integers(1, 200),
    st.integers(1, 20),
    st.lists(st.floats(0.001, 1.0), min_size=1, max_size=5),
)
def test_shares_of_a_head_meet_without_gap_and_add_up(cached, new, budget_blocks, weights):
    chunks = [Chunk(cached, new, decodes=cached > 0 and new == 1)]
    edges = [0.0, *np.cumsum(weights) / np.sum(weights)]
    q, cache = random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 16, paged=True)
    whole = attend(q, cache, prepare([HeadShare(0, 0, 16 * budget_blocks)], chunks, 16), "torch")
    parts = [
        attend(q, cache, prepare([HeadShare(0, 0, 16 * budget_blocks, rows)], chunks, 16), "torch")
        for rows in pairwise(edges)
    ]
    for name in ("tiles",) if chunks[0].decodes else ("tiles", "query_blocks"):
        assert sum(getattr(p.counts, name) for p in parts) == getattr(whole.counts, name)
    out, lse = merge(torch.stack([p.out for p in parts]), torch.stack([p.lse for p in parts]))
    assert torch.allclose(out, whole.out, atol=1e-5)
    assert torch.allclose(lse, whole.lse, atol=1e-5)


@backends
def test_the_next_token_needs_no_new_preparation(backend):
    chunks = [Chunk(30, 1, True), Chunk(63, 1, True)]
    room = [Chunk(60, 20), Chunk(60, 20)]
    cache = random_cache(room, 1, 32, 16, paged=True)
    q = random_q(chunks, 2, 32)
    shares = [HeadShare(h, 0, 32, sequence=s) for s in range(2) for h in range(2)]
    step = prepare(shares, chunks, 16, room_tokens=80)
    for _ in range(3):
        result = attend(q, cache, step, backend, bounds=page_bounds(cache, contexts(room)))
        assert_right(q, cache, step, result)
        step.context_tokens.add_(1)


@backends
def test_recovery_is_watched_where_asked_for(backend):
    q, cache = random_q(MIXED, 2, 32), random_cache(MIXED, 1, 32, 16, paged=True)
    shares = [HeadShare(h, 0, 32 if h else 500, sequence=s) for s in range(4) for h in range(2)]
    step = prepare(shares, MIXED, 16, packed=False)
    result = attend(q, cache, step, backend, watched_rows=4)
    assert result.recovery.shape == (8,)
    dense, sparse = result.recovery[0::2], result.recovery[1::2]
    assert torch.allclose(dense, torch.ones(4), atol=1e-5)
    assert ((sparse > 0) & (sparse < 1)).all()
    keys, _ = sequence_kv(cache, 1, 0, 51)
    exact = result.lse[1, 70].double().exp() / (keys @ q[1, 70].double() / 32**0.5).exp().sum()
    assert torch.allclose(sparse[2].double(), exact, atol=1e-5)
    assert attend(q, cache, step, backend).recovery is None


@backends
def test_a_share_too_small_for_a_row_computes_nothing(backend):
    chunks = [Chunk(0, 64)]
    step = prepare([HeadShare(0, 0, 64, (0.0, 0.01))], chunks, 16)
    result = attend(random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 16), step, backend)
    assert (result.counts.query_blocks, result.counts.tiles) == (0, 0)
    assert (result.out == 0).all()


@backends
def test_no_shares_are_no_work(backend):
    chunks = [Chunk(0, 64)]
    step = prepare([], chunks, 16)
    result = attend(random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 16), step, backend)
    assert (result.out == 0).all()
    assert (result.lse == -torch.inf).all()


def test_an_sm_share_changes_nothing_but_the_grid():
    q, cache = random_q(MIXED, 2, 32), random_cache(MIXED, 1, 32, 16, paged=True)
    shares = [HeadShare(h, 0, 48, sequence=s) for s in range(4) for h in range(2)]
    step = prepare(shares, MIXED, 16)
    all_of_it, shared = (attend(q, cache, step, "triton", sms=sms) for sms in (None, 2))
    assert torch.allclose(all_of_it.out, shared.out, atol=1e-6)
    assert torch.allclose(all_of_it.lse, shared.lse, atol=1e-6)


def test_cut_lists_are_counted_and_change_nothing():
    chunks = [Chunk(480, 32)]
    q, cache = random_q(chunks, 1, 32), random_cache(chunks, 1, 32, 16)
    whole, cut = (
        prepare([HeadShare(0, 0, 10_000)], chunks, 16, programs=programs) for programs in (None, 8)
    )
    assert (whole.schedule.splits, whole.schedule.longest_chain) == (0, 32)
    assert whole.schedule.starts == whole.counts.query_blocks
    assert cut.schedule.splits > 0
    assert cut.schedule.starts >= cut.schedule.splits
    assert cut.schedule.longest_chain < 32
    assert cut.counts == whole.counts
    one, other = (attend(q, cache, step, "triton") for step in (whole, cut))
    assert torch.allclose(one.out, other.out, atol=1e-6)
    assert torch.allclose(one.lse, other.lse, atol=1e-6)


def test_auto_is_triton_for_tensors_on_a_gpu():
    for place, expected in (("cuda:1", "triton"), ("cpu", "torch")):
        assert resolve_backend("auto", torch.device(place)) == expected
        assert resolve_backend("torch", torch.device(place)) == "torch"


@backends
def test_without_bounds_they_are_those_of_the_context_now(backend):
    """Pages that a sequence has begun since the step was prepared are chosen as the others are."""
    room = [Chunk(0, 256)]
    cache, q = random_cache(room, 1, 32, 16, paged=True), random_q([Chunk(255, 1, True)], 1, 32)
    step = prepare([HeadShare(0, 0, 64)], [Chunk(100, 1, True)], 16, room_tokens=256)
    step.context_tokens.fill_(256)
    later = prepare([HeadShare(0, 0, 64)], [Chunk(255, 1, True)], 16)
    grown, fresh = (attend(q, cache, each, backend) for each in (step, later))
    assert torch.equal(grown.lists.indices, fresh.lists.indices)
    assert torch.equal(grown.out, fresh.out)


def test_a_prompt_may_end_in_a_chunk_of_one_token():
    chunks = [Chunk(32, 1)]
    q, cache = random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 16)
    step = prepare([HeadShare(0, 0, 32)], chunks, 16)
    assert step.decode is None
    assert_right(q, cache, step, attend(q, cache, step))


def test_bytes_of_keys_and_values_are_those_of_the_tiles():
    chunks = [Chunk(0, 16)]
    step = prepare([HeadShare(0, 0, 16)], chunks, 16)
    result = attend(random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 16), step)
    assert result.kv_bytes == 2 * 16 * 16 * 4


PROMPTS = (Chunk(0, 70), Chunk(40, 33), Chunk(50, 1, True))
DENSE_AND_OTHERS = [
    HeadShare(0, 0, 10_000),
    HeadShare(1, 0, 32),
    HeadShare(2, 1, 80),
    HeadShare(3, 1, 10_000, (0.0, 0.5)),
    HeadShare(0, 0, 10_000, sequence=1),
    HeadShare(1, 0, 48, sequence=1, pattern=Rule.sink_local()),
    HeadShare(0, 0, 32, sequence=2),
]


@pytest.fixture
def dense_calls(monkeypatch):
    """The whole prompts that PyTorch's attention computed, call by call."""
    calls = []

    def recorded(q, cache, dense, out, lse):
        calls.append(dense)
        return dense_attention(q, cache, dense, out, lse)

    monkeypatch.setattr(block_sparse, "dense_attention", recorded)
    return calls


@pytest.mark.parametrize("block", [16, 32])
def test_whole_dense_heads_by_pytorchs_attention(dense_calls, block):
    q, cache = random_q(PROMPTS, 4, 32), random_cache(PROMPTS, 2, 32, 16, paged=True)
    own, other = (
        prepare(DENSE_AND_OTHERS, PROMPTS, block, piece_tokens=16, sdpa=sdpa)
        for sdpa in (False, True)
    )
    expected = attend(q, cache, own, "triton", watched_rows=4)
    assert not dense_calls
    result = attend(q, cache, other, "triton", watched_rows=4)
    assert [(x.heads, x.sequence) for x in dense_calls[0]] == [((0,), 0), ((2,), 0)]
    assert_right(q, cache, other, result)
    assert torch.equal(result.indices, expected.indices)
    for name in ("counts", "schedule", "kv_bytes"):
        assert getattr(result, name) == getattr(expected, name)
    assert torch.allclose(result.recovery, expected.recovery, atol=1e-5)
    # The others are the own kernel's, bit for bit.
    assert torch.equal(result.out[[1, 3]], expected.out[[1, 3]])


def test_nothing_but_whole_dense_heads(dense_calls):
    chunks = [Chunk(0, 50)]
    q, cache = random_q(chunks, 2, 32), random_cache(chunks, 1, 32, 16)
    step = prepare([HeadShare(h, 0, 64) for h in range(2)], chunks, 16, sdpa=True)
    assert step.apart.others is None
    assert_right(q, cache, step, attend(q, cache, step, "triton"))
    assert len(dense_calls) == 1


def test_refused_heads_are_the_own_kernels(monkeypatch):
    monkeypatch.setattr(block_sparse, "dense_attention", lambda *_: False)
    q, cache = random_q(PROMPTS, 4, 32), random_cache(PROMPTS, 2, 32, 16, paged=True)
    step = prepare(DENSE_AND_OTHERS, PROMPTS, 16, sdpa=True)
    assert_right(q, cache, step, attend(q, cache, step, "triton"))


def test_where_whole_dense_heads_stay_with_the_own_kernel(dense_calls, monkeypatch):
    """With a share of the multiprocessors, on the torch back end and where HPLB_SDPA says so."""
    q, cache = random_q(PROMPTS, 4, 32), random_cache(PROMPTS, 2, 32, 16, paged=True)
    step = prepare(DENSE_AND_OTHERS, PROMPTS, 16, sdpa=True)
    attend(q, cache, step, "triton", sms=2)
    attend(q, cache, step, "torch")
    assert not dense_calls
    monkeypatch.setenv("HPLB_SDPA", "0")
    assert prepare(DENSE_AND_OTHERS, PROMPTS, 16, sdpa=True).apart is None
