"""What a rank gets ready for, and when it begins with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from executor.engines.vllm import metrics, serving
from executor.engines.vllm.agreement import Agreement
from executor.engines.vllm.metrics import RankReport
from executor.engines.vllm.options import Options
from executor.engines.vllm.serving import Serving
from executor.errors import WeightsError
from executor.inference.slot_steps import SlotSteps
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import SlotLayout, slots_of
from solver.plans import Plan
from tests.engines.made import ELSEWHERE
from tests.executor.plans import assignment
from tests.executor.weights.models import DIVIDED, WHOLE, planned

PLAN, CHANGED, OTHER = (planned(layers, slots=2) for layers in (DIVIDED, ELSEWHERE, WHOLE))
LAYERS, CPU = frozenset(range(2)), torch.device("cpu")


def wanted(plan: Plan, **changes: Any) -> Any:
    return assignment(plan, devices=[1], **changes)


class Weights:
    """In the place of `Written`: of OTHER's layout, once they are `there`."""

    there = False

    def of(self, plan: Plan, layout: SlotLayout, kept: Callable[[], set[Path]]) -> Path | None:
        assert plan.id == OTHER.id
        assert layout.id == slots_of(OTHER).id
        assert kept() == {Path("served")}
        return Path("other") if self.there else None


@pytest.fixture
def weights() -> Weights:
    return Weights()


@pytest.fixture
def rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Weights) -> Serving:
    """Rank 1, alone in its agreement."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setenv(metrics.FOLDER, str(tmp_path))
    made = ExecutionMap.of(PLAN, slots_of(PLAN), original=Original(tensors_sha256="", files={}))
    told = Options.of({"hplb_planner": "http://planner", "hplb_node": "n"})
    report, alone = RankReport(made, (1,), 0, 1, 2048), Agreement(1, None)
    return Serving(made, (1,), report, told, alone, Path("served"), weights)


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


def told() -> dict[str, float]:
    """The rank's numbers, by name."""
    return {
        family.name: sample.value
        for family in metrics._Ranks().collect()
        for sample in family.samples
    }


def test_another_layout_is_begun_with_once_its_weights_are_loaded(
    rank: Serving, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "weight_bytes", {Path("other"): 4096}.get)
    rank.wants(wanted(OTHER))
    assert rank.offer() is None
    weights.there = True
    rank.wants(wanted(OTHER))
    assert told()["hplb_plan_wanted_timestamp_seconds"] > 0
    name, other_weights = rank.offer()
    assert other_weights
    assert name.startswith(f"{slots_of(OTHER).id} {OTHER.id} ")
    assert turn(rank) == 0
    assert rank.offered_weights == Path("other")
    assert rank.map.plan == PLAN.id
    assert "not ready for another" in rank.begin("another", 0.0)
    assert rank.begin(name, 0.25) is None
    assert (rank.map.plan, rank.map.layout.id) == (OTHER.id, slots_of(OTHER).id)
    assert rank.weights == Path("other")
    assert rank.offer() is None
    rank.wants(wanted(OTHER))
    found = told()
    assert found["hplb_plan_switches"] == 1
    assert found["hplb_plan_switch_seconds"] == 0.25
    assert found["hplb_plan_loaded_bytes"] == 4096
    assert found["hplb_plan_wanted_timestamp_seconds"] == 0


def test_what_was_offered_is_begun_with_whatever_is_wanted_meanwhile(rank: Serving) -> None:
    rank.wants(wanted(CHANGED))
    name, other_weights = rank.offer()
    assert not other_weights
    rank.wants(wanted(PLAN, generation=3))
    assert rank.begin(name, 0.0) is None
    assert rank.map.plan == CHANGED.id
    assert rank.offer() is None
    rank.wants(wanted(PLAN, generation=3))
    assert rank.offer() is not None


def test_what_was_ready_before_other_weights_were_loaded_needs_its_own_again(
    rank: Serving, weights: Weights
) -> None:
    weights.there = True
    rank.wants(wanted(OTHER))
    name, _ = rank.offer()
    rank.wants(wanted(CHANGED))
    assert rank.begin(name, 0.0) is None
    name, other_weights = rank.offer()
    assert CHANGED.id in name
    assert other_weights
    assert rank.offered_weights == Path("served")


def test_what_cannot_be_loaded_is_refused_and_not_offered_again(
    rank: Serving, weights: Weights
) -> None:
    weights.there = True
    rank.wants(wanted(OTHER))
    name, _ = rank.offer()
    rank.refuse(name, "no memory")
    assert rank.offer() is None
    with pytest.raises(WeightsError, match="no memory"):
        rank.wants(wanted(OTHER))
    assert rank.offer() is None
    rank.wants(wanted(CHANGED))
    assert rank.offer() is not None


def test_without_a_front_end_that_loads_them_the_next_start_is_to(
    rank: Serving, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.there = True
    rank.wants(wanted(OTHER))
    assert turn(rank) == 0
    monkeypatch.setattr(serving, "HELD_UP_S", 0.0)
    with pytest.raises(WeightsError, match="in other: start the engine on that folder"):
        rank.wants(wanted(OTHER))
    rank.offer()
    rank.wants(wanted(OTHER))


def test_what_these_weights_cannot_serve_is_told(rank: Serving) -> None:
    assert rank.unfit(wanted(CHANGED), "cpu") is None
    assert rank.unfit(wanted(OTHER), "cpu") is None
    three = rank.unfit(wanted(planned(WHOLE, slots=3)), "cpu")
    assert three is not None
    assert "has 3 KV slots a rank of 2 query heads, the engine began with 2 of 2" in three
    assert "hplb apply" in three
    assert "in the order of their ranks" in str(rank.unfit(assignment(PLAN, devices=[0]), "cpu"))
    assert "wants a device of type cpu, this rank is a h200" in str(
        rank.unfit(wanted(PLAN), "h200")
    )
    step = PLAN.workload.model_copy(update={"piece_tokens": 32})
    larger = PLAN.model_copy(update={"workload": step}).identified()
    assert "start it anew" in str(rank.unfit(wanted(larger), "cpu"))
