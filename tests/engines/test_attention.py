"""A layer's implementation alone, over a cache by hand."""

from types import SimpleNamespace

import torch

from executor.engines.vllm.attention import BATCH, Batch, PlanImpl
from executor.inference.slot_steps import SlotSteps, paged
from executor.kernels.batch import Cache
from executor.kernels.bounds import page_bounds
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import slots_of
from tests.executor.weights.models import planned

BLOCK, HEAD = 32, 16
HALVES = [[*[[(0, 0.5), (1, 0.5)]] * 2, *[[(1, 1.0)]] * 4]] * 2
"""The first of two ranks has half of a KV group, and nothing else."""


def test_bounds_are_kept_of_tokens_that_another_rank_decodes() -> None:
    plan = planned(HALVES, slots=3)
    made = ExecutionMap.of(plan, slots_of(plan), original=Original(tensors_sha256="", files={}))
    steps = SlotSteps(made, (0,), 2048, torch.device("cpu"), range(2))
    (phase,) = steps.of_batch([69], [70]).phases
    assert phase.steps[0] is None
    impl = object.__new__(PlanImpl)
    impl.served = SimpleNamespace(map=made)
    impl.computes, impl.head_size, impl.scale = True, HEAD, HEAD**-0.5
    impl._number, impl._chooses, impl._bounds, impl._of_cache = 0, True, None, 0
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
