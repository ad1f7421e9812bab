"""The work of an engine's batches is counted as executors count it and plans predict it."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from executor.attention.counts import SCORED, Counts, attention_work
from executor.inference.phase_work import phase_work
from executor.inference.slot_steps import SlotSteps
from executor.kernels.decode_layout import DecodeHeads
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import slots_of
from profiles.cost.work import FEATURES, INDEX
from solver.planning.predict import shard_work
from solver.plans import Plan
from tests.executor.weights.models import DIVIDED, WHOLE, planned

MOST = 4096
ATTENTION = [name for name in FEATURES if name not in ("projection_flops", "link_bytes")]


def steps_of(plan: Plan, rank: int) -> SlotSteps:
    made = ExecutionMap.of(plan, slots_of(plan), original=Original(tensors_sha256="", files={}))
    return SlotSteps(made, (rank,), MOST, torch.device("cpu"), range(2))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("placement", [DIVIDED, WHOLE])
def test_whole_prompts_are_what_the_plan_predicts(placement: list, rank: int) -> None:
    plan = planned(placement, slots=2)
    workload = plan.workload.model_copy(update={"context_tokens": 1024, "batch_size": 3})
    plan = plan.model_copy(update={"workload": workload})
    steps = steps_of(plan, rank)
    (phase,) = steps.of_batch([0] * 3, [1024] * 3).phases
    found = phase_work(phase, steps.groups, plan.architecture)
    for layer in range(2):
        expected = shard_work(plan, layer)[rank]
        for name in ATTENTION:
            assert found[layer, INDEX[name]] == pytest.approx(expected[INDEX[name]]), name


def counted_one_by_one(
    lists: Sequence[DecodeHeads], context: list[int], piece_tokens: int
) -> Counts:
    blocks = tiles = gathered = scored = decoded = 0
    for entry in lists:
        assert entry.part == (0.0, 1.0)
        pieces, heads = -(-context[entry.sequence] // piece_tokens), len(entry.heads)
        read = min(entry.budget_pieces, pieces)
        blocks, tiles, decoded = blocks + heads, tiles + heads * read, decoded + read
        if read < pieces:
            gathered += heads * read
            scored += heads * pieces * isinstance(entry.pattern, SCORED)
    return Counts(blocks, tiles, gathered, scored, 0, decoded)


def test_decodes_are_counted_at_their_own_lengths() -> None:
    plan = planned(DIVIDED, slots=2)
    steps = steps_of(plan, 1)
    lengths = [40, 700, 300, 90]
    (phase,) = steps.of_batch([n - 1 for n in lengths], lengths).phases
    found = phase_work(phase, steps.groups, plan.architecture)
    for layer, step in enumerate(phase.steps):
        assert step is not None
        assert step.decode is not None
        lists = step.decode.lists
        counts = counted_one_by_one(lists, lengths, step.piece_tokens)
        assert counts.gathered_tiles > 0
        expected = attention_work(
            counts,
            plan.architecture,
            step.piece_tokens,
            list_rows=1,
            computed_rows=counts.query_blocks,
            lists=len(lists),
            read_tokens=counts.decoded_pieces * step.piece_tokens,
        )
        assert found[layer].tolist() == [expected.get(name, 0) for name in FEATURES]


def test_parts_of_a_batch_are_counted_apart_and_chunks_add_up() -> None:
    plan = planned(DIVIDED, slots=2)
    steps = steps_of(plan, 0)
    batch = steps.of_batch([511, 0, 256], [512, 512, 512])
    decoded, prompts = (phase_work(p, steps.groups, plan.architecture) for p in batch.phases)
    assert np.all(decoded[:, INDEX["query_blocks"]] > 0)
    alone = [
        phase_work(steps.of_batch(had, has).phases[0], steps.groups, plan.architecture)
        for had, has in (([511], [512]), ([0], [512]), ([256], [512]))
    ]
    assert np.array_equal(decoded, alone[0])
    launches = np.zeros(len(FEATURES))
    launches[INDEX["launches"]] = 1
    assert np.array_equal(prompts, alone[1] + alone[2] - launches)
