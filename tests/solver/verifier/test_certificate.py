"""Bounds that a plan claims: proved again, contradicted, or left unproved."""

import json
from pathlib import Path

import pytest

from solver.plans import Plan
from solver.verifier import verify
from tests.solver.profiles import budgets_profile, plan_of
from tests.solver.verifier.handmade import Json, sealed
from tests.solver.verifier.lies import claiming_optimal


def planned(**options: object) -> Json:
    content: Json = json.loads(plan_of(budgets_profile(), **options).model_dump_json())
    return content


@pytest.mark.parametrize("equal_counts", [False, True])
def test_a_better_placement_contradicts_a_raised_bound(equal_counts: bool) -> None:
    rules = {"equal_counts": equal_counts}
    better = planned(method="auto", placement=rules, tolerance=1e-6, time_limit_s=5)
    plan = planned(method="contiguous", placement=rules)
    assert better["makespan_s"] < 0.995 * plan["makespan_s"]
    verdict = verify(claiming_optimal(plan))
    assert not verdict.ok
    for index, (layer, best) in enumerate(zip(plan["layers"], better["layers"], strict=True)):
        said = f"layer {index}: bound {layer['makespan_s']} s, but there is a placement below it"
        false = best["makespan_s"] < layer["makespan_s"] * (1 - 1e-6)
        assert (said in verdict.faults) == false
        assert verdict.layers[index].verdict == ("false" if false else "proved")
    assert verdict.unproved == []


def test_an_optimal_plan_may_claim_so_whoever_proved_it() -> None:
    """Raised to the makespan of an optimal layer a bound is true, and proved."""
    verdict = verify(claiming_optimal(planned(method="auto", tolerance=1e-6, time_limit_s=5)))
    assert (verdict.faults, verdict.unproved) == ([], [])
    assert {layer.proof for layer in verdict.layers} == {"fillings of devices"}


def test_raised_bounds_of_divided_heads_are_unproved() -> None:
    plan = planned(method="auto", placement={"divisible": True})
    assert verify(plan).unproved == []
    raised = [i for i, of in enumerate(plan["layers"]) if of["lower_bound_s"] < of["makespan_s"]]
    verdict = verify(claiming_optimal(plan))
    assert verdict.ok
    assert raised
    assert verdict.unproved == raised
    for index in raised:
        layer = verdict.layers[index]
        assert layer.proved_s < layer.claimed_s == layer.makespan_s


def test_without_time_only_the_simple_bounds_are_tried() -> None:
    plan = planned(method="auto")
    assert verify(plan).unproved == []
    assert verify(plan, time_limit_s=0).unproved == [0, 1, 2]


def test_a_limit_on_memory_may_be_what_proves_a_bound() -> None:
    """The verifier's own placements know of no memory, so that they contradict nothing."""
    memory = {"memory": {}}
    plan = planned(method="contiguous", deployment="tensor_parallel", placement=memory)
    verdict = verify(claiming_optimal(plan))
    assert verdict.ok
    assert verdict.unproved


def test_weighted_costs_contradict_nothing() -> None:
    """A placement of the weighted costs has another makespan under every workload."""
    plan = planned(
        method="contiguous",
        workloads=[{"context_tokens": 8192}, {"context_tokens": 8192, "phase": "decode"}],
    )
    verdict = verify(claiming_optimal(plan))
    assert verdict.ok
    assert verdict.unproved


def test_one_bound_a_little_too_high_is_enough() -> None:
    plan = planned(method="auto", placement={"divisible": True})
    plan["layers"][1]["lower_bound_s"] *= 1 + 1e-6
    assert verify(sealed(plan)).unproved == [1]


def test_the_object_its_json_and_its_file_are_one_plan(tmp_path: Path) -> None:
    plan = plan_of(budgets_profile(), method="greedy")
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json())
    assert isinstance(plan, Plan)
    verdict = verify(plan)
    assert verdict == verify(json.loads(path.read_text())) == verify(path) == verify(str(path))
    with pytest.raises(OSError, match="nowhere"):
        verify(tmp_path / "nowhere.json")
    path.write_text("no plan")
    with pytest.raises(ValueError, match="Expecting value"):
        verify(path)
