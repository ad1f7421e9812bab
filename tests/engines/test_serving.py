"""What a rank gets ready for, and when it begins with it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from executor.engines.vllm import metrics, serving
from executor.engines.vllm.agreement import Agreement
from executor.engines.vllm.metrics import RankReport
from executor.engines.vllm.options import Options
from executor.engines.vllm.serving import Serving
from executor.inference.slot_steps import SlotSteps
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import slots_of
from solver.plans import Plan
from tests.engines.made import ELSEWHERE
from tests.executor.plans import assignment
from tests.executor.weights.models import DIVIDED, WHOLE, planned

PLAN, CHANGED = planned(DIVIDED, slots=2), planned(ELSEWHERE, slots=2)
LAYERS, CPU = frozenset(range(2)), torch.device("cpu")


def wanted(plan: Plan, **changes: Any) -> Any:
    return assignment(plan, devices=[1], **changes)


@pytest.fixture
def rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """Rank 1, alone in its agreement."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setenv(metrics.FOLDER, str(tmp_path))
    made = ExecutionMap.of(PLAN, slots_of(PLAN), original=Original(tensors_sha256="", files={}))
    told = Options.of({"hplb_planner": "http://planner", "hplb_node": "n"})
    return Serving(made, (1,), RankReport(made, (1,), 0, 1), told, Agreement(1, None))


def turn(rank: Serving) -> int:
    """The turn, of as many as there are between two questions, at which another map is served."""
    before = rank.map
    for number in range(1, serving.AGREE_EVERY + 1):
        rank.turn()
        if rank.map is not before:
            return number
    return 0


def test_steps_are_those_of_the_map_that_is_served(rank: Serving) -> None:
    first = rank.steps(LAYERS, 2048, CPU)
    assert rank.steps(LAYERS, 2048, CPU) is first
    assert turn(rank) == 0
    rank.wants(wanted(CHANGED))
    assert turn(rank) == serving.AGREE_EVERY
    assert (rank.map.plan, rank.map.layout.id) == (CHANGED.id, slots_of(PLAN).id)
    second = rank.steps(LAYERS, 2048, CPU)
    assert second is not first
    found = second.of_batch([0], [300]).tiles
    assert found == SlotSteps(rank.map, (1,), 2048, CPU, LAYERS).of_batch([0], [300]).tiles
    assert found != first.of_batch([0], [300]).tiles
    assert turn(rank) == 0


def test_what_is_taken_back_in_time_does_not_go_live(rank: Serving) -> None:
    rank.wants(wanted(CHANGED))
    rank.wants(wanted(PLAN, generation=3))
    assert turn(rank) == 0
    rank.wants(wanted(CHANGED, generation=4))
    assert turn(rank) == serving.AGREE_EVERY
    rank.wants(wanted(PLAN, generation=5))
    assert turn(rank) == serving.AGREE_EVERY
    assert rank.map.plan == PLAN.id


def test_what_these_weights_cannot_serve_is_told(rank: Serving) -> None:
    assert rank.unfit(wanted(CHANGED), "cpu") is None
    other = planned(WHOLE, slots=2)
    told = rank.unfit(wanted(other), "cpu")
    assert told is not None
    assert f"has the layout {slots_of(other).id[:12]}, the weights have" in told
    assert "hplb apply" in told
    assert "in the order of their ranks" in str(rank.unfit(assignment(PLAN, devices=[0]), "cpu"))
    assert "wants a device of type cpu, this rank is a h200" in str(
        rank.unfit(wanted(PLAN), "h200")
    )
    step = PLAN.workload.model_copy(update={"piece_tokens": 32})
    larger = PLAN.model_copy(update={"workload": step}).identified()
    assert "start it anew" in str(rank.unfit(wanted(larger), "cpu"))
