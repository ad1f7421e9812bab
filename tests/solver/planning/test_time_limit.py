"""A plan whose time is up before it begins is whole, verified, and no stranger than it must be."""

from threading import Event
from typing import Any

import numpy as np
import pytest

from solver.deadline import Deadline
from solver.planning.planner import make_plan, rates_of
from solver.plans import Plan
from solver.request import PlanRequest
from solver.search.solve import Search, solve
from tests.solver.problems import make_problem
from tests.solver.profiles import budgets_profile, faults

NO_TIME_S = 1e-9
RULES: list[dict[str, Any]] = [
    {"divisible": True},
    {"divisible": True, "max_copies": 16},
    {"divisible": True, "node_size": 8},
    {"divisible": True, "memory": {}},
    {},
    {"equal_counts": True},
]


def request(placement: dict[str, Any], **fields: Any) -> PlanRequest:
    return PlanRequest.model_validate(
        {
            "profile": budgets_profile(layers=3, heads=8, kv_heads=4),
            "gpus": 64,
            "context_tokens": 131_072,
            "placement": placement,
            **fields,
        }
    )


def made(asked: PlanRequest, cancel: Event | None = None) -> Plan:
    return make_plan(asked, rates_of(asked), cancel=cancel)


@pytest.mark.parametrize("placement", RULES)
def test_without_time_every_layer_is_there_and_divided(placement: dict[str, Any]) -> None:
    plan = made(request(placement, time_limit_s=NO_TIME_S))
    assert faults(plan) == []
    assert plan.elsewhere is None
    if placement.get("divisible"):
        # Whole heads on eight of the devices come to several times that.
        assert plan.imbalance is not None
        assert plan.imbalance < 2


def test_cancelled_before_it_begins_it_is_as_whole() -> None:
    cancel = Event()
    cancel.set()
    plan = made(request({"divisible": True}), cancel)
    assert faults(plan) == []
    assert plan.reason is not None
    assert plan.reason.startswith("cancelled")
    assert plan.imbalance is not None
    assert plan.imbalance < 2


def test_layers_that_are_not_wrapped_in_time_are_cut_evenly() -> None:
    problem = make_problem(5, 16, 16, 96, charge=0.01, divisible=True)
    solution = solve(problem, Search(time_limit_s=0.0))
    for index, solved in enumerate(solution.layers):
        layer = problem.layer(index)
        loads = layer.loads_of_shares(solved.shares)
        assert solved.makespan_s == pytest.approx(layer.objective(loads))
        assert solved.makespan_s < 1.5 * loads.mean()
        assert solved.bound.seconds <= solved.makespan_s


def test_no_wrap_is_begun_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes by the clock that the deadline reads: here, by the wraps that were made."""
    wraps: list[int] = []
    monkeypatch.setattr(Deadline, "left_s", property(lambda self: max(self.at - len(wraps), 0.0)))
    monkeypatch.setattr(
        Deadline, "within", lambda self, s: Deadline(min(self.at, len(wraps) + s), self.cancelled)
    )
    from solver.search import divided

    def wrapped(*_: Any) -> None:
        wraps.append(1)

    monkeypatch.setattr(divided, "wrap_around", wrapped)
    monkeypatch.setattr(Search, "deadline", lambda self: Deadline(2.0, self.cancelled))
    problem = make_problem(7, 16, 16, 96, charge=0.01, divisible=True)
    solution = solve(problem, Search())
    assert len(wraps) == 2
    sums = [layer.shares.dense.sum(axis=1) for layer in solution.layers]
    np.testing.assert_allclose(sums, 1, rtol=1e-9)
