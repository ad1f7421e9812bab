"""A layer's implementation alone, over a cache by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from executor.attention.block_sparse import attend
from executor.engines.vllm.attention import BATCH, Batch, PlanImpl
from executor.engines.vllm.timing import WATCHED_ROWS, SampledStep
from executor.inference.slot_steps import SlotSteps, paged
from executor.kernels.batch import Cache
from executor.kernels.bounds import page_bounds
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import slots_of
from tests.executor.weights.models import planned

BLOCK, HEAD = 32, 16
HALVES = [[*[[(0, 0.5), (1, 0.5)]] * 2, *[[(1, 1.0)]] * 4]] * 2
"""The first of two ranks has half of a KV group, and nothing else."""


def layer(made: ExecutionMap, number: int) -> PlanImpl:
    """The implementation of a layer that the plan covers, which no engine made."""
    impl = object.__new__(PlanImpl)
    impl.served = SimpleNamespace(map=made)
    impl.computes, impl.head_size, impl.scale = True, HEAD, HEAD**-0.5
    impl._number, impl._chooses, impl._bounds, impl._of_cache = number, True, None, 0
    return impl


def test_bounds_are_kept_of_tokens_that_another_rank_decodes() -> None:
    plan = planned(HALVES, slots=3)
    made = ExecutionMap.of(plan, slots_of(plan), original=Original(tensors_sha256="", files={}))
    steps = SlotSteps(made, (0,), 2048, torch.device("cpu"), range(2))
    (phase,) = steps.of_batch([69], [70]).phases
    assert phase.steps[0] is None
    impl = layer(made, 0)
    cache = torch.randn(8, 3, BLOCK, 2 * HEAD, generator=torch.Generator().manual_seed(0))
    table = torch.tensor([[5, 2, 7, 0]], dtype=torch.int32)
    context = torch.tensor([70], dtype=torch.int32)
    batch = Batch((paged(phase, table, context, BLOCK),), None)
    metadata = SimpleNamespace(num_actual_tokens=1, **{BATCH: batch})
    query, out = torch.randn(1, 6, HEAD), torch.full((1, 6, HEAD), torch.nan)
    impl.forward(None, query, query, query, cache, metadata, out)
    assert torch.equal(out, torch.zeros_like(out))
    keys, values = impl.halves(cache)
    whole = page_bounds(Cache(keys, values, pages=table), context, made.piece_tokens)
    # Of the block that the new token is in.
    rows = slice(7 * (BLOCK // made.piece_tokens), 8 * (BLOCK // made.piece_tokens))
    assert torch.equal(impl._bounds[rows], whole[rows])
    assert whole[rows].abs().max() > 0


def test_of_the_watched_layer_it_is_told_what_the_lists_held() -> None:
    """A chunk of 268 tokens beside a decode, by both ranks' slots in one process."""
    plan = planned(HALVES, slots=3)
    made = ExecutionMap.of(plan, slots_of(plan), original=Original(tensors_sha256="", files={}))
    steps = SlotSteps(made, (0, 1), 2048, torch.device("cpu"), range(2))
    cached, has = [499, 32], [500, 300]
    batch = steps.of_batch(cached, has)
    sampled = SampledStep(1, made, (0, 1), batch, steps.groups, torch.device("cpu"), 1)
    draw = torch.Generator().manual_seed(0)
    cache = torch.randn(32, 6, BLOCK, 2 * HEAD, generator=draw)
    pages = torch.randperm(32, generator=draw).int()
    table = torch.zeros(2, 2048 // BLOCK, dtype=torch.int32)
    table[0, :16], table[1, :10] = pages[:16], pages[16:26]
    context = torch.tensor(has, dtype=torch.int32)
    phases = tuple(paged(phase, table, context, BLOCK) for phase in batch.phases)
    query = torch.randn(269, 12, HEAD, generator=draw)
    for number in range(2):
        metadata = SimpleNamespace(num_actual_tokens=269)
        setattr(metadata, BATCH, Batch(phases, None, sampled))
        impl, out = layer(made, number), torch.empty_like(query)
        impl.forward(None, query, query, query, cache, metadata, out)
        assert len(sampled.held()) == number * 2
    held = sampled.held()
    decode, prompt = held[0], held[1]
    assert (batch.phases[0].context.tolist(), batch.phases[1].context.tolist()) == ([500], [300])
    # Six heads, divided or not, by the model's numbers, and where their rows lie.
    assert sorted(decode.head.tolist()) == list(range(6))
    assert set(zip(decode.first.tolist(), decode.last.tolist(), strict=True)) == {(499, 500)}
    for head in range(6):
        of_head = prompt.head == head
        assert prompt.rows[of_head].sum() == 268
        assert (prompt.first[of_head].min(), prompt.last[of_head].max()) == (32, 300)
    for told, of in zip((decode, prompt), phases, strict=True):
        step = replace(of.phase.steps[1], context_tokens=of.context)
        keys = Cache(*impl.halves(cache), pages=of.pages)
        again = attend(
            query[of.phase.tokens].transpose(0, 1), keys, step, watched_rows=WATCHED_ROWS
        )
        least, most = float(again.recovery.min()), float(again.recovery.max())
        assert 0 < least < 1
        assert told.recovery.min() <= most
        assert told.recovery.max() >= least
    # Of a prompt entry by entry as attention says it, of decodes each list's heads apart.
    assert prompt.recovery.tolist() == pytest.approx(again.recovery.tolist())
    assert len(set(decode.recovery.tolist())) == 6
    assert len(sampled.took()) == 4
