"""Medians and their summary, against figures worked out by hand."""

import pytest

from api.deployments.accuracy import measure, predict, prediction_error, time_drift
from profiles.catalogue import catalogue_rates
from solver.planning.planner import make_plan
from solver.plans import Plan
from solver.request import PlanRequest
from tests.api.world import plan_body, profile


def _plan(loads: list[list[float]]) -> Plan:
    """A real plan with its loads replaced."""
    body = plan_body(gpus=len(loads[0]), profile=profile(layers=len(loads)))
    request = PlanRequest.model_validate(body)
    assert not isinstance(request.profile, str)
    plan = make_plan(request, [catalogue_rates(["h200"], "prefill")])
    layers = [
        layer.model_copy(update={"loads_s": row})
        for layer, row in zip(plan.layers, loads, strict=True)
    ]
    return plan.model_copy(update={"layers": layers})


def test_by_hand() -> None:
    plan = _plan([[1.0, 3.0], [2.0, 0.0]])
    seconds = [(0, 0, 2.0), (0, 1, 5.0), (0, 0, 4.0), (0, 1, 7.0), (1, 0, 4.0), (1, 0, 4.0)]
    found = measure(plan, [0, 1], seconds)
    assert found is not None
    assert found.rounds == 2
    assert found.loads_s[0].tolist() == [3.0, 6.0]
    assert found.makespan_s == 6.0 + 4.0
    assert found.bubble_ratio == pytest.approx(1 - (3 + 6 + 4) / (2 * 10))
    predicted = predict(plan, [0, 1])
    assert predicted.makespan_s == 5.0
    assert predicted.bubble_ratio == pytest.approx(1 - 6 / 10)
    assert time_drift(predicted, found) == 2.0
    assert prediction_error(plan, [0, 1], found) == pytest.approx((2 / 3 + 3 / 6 + 2 / 4) / 3)


def test_an_idle_device_needs_no_measurement_and_counts_as_idle() -> None:
    plan = _plan([[2.0, 0.0]])
    alone = measure(plan, [0], [(0, 0, 4.0)])
    timed = measure(plan, [0], [(0, 0, 4.0), (0, 1, 9.0)])
    assert alone is not None
    assert timed is not None
    assert alone.makespan_s == timed.makespan_s == 4.0
    assert timed.bubble_ratio == 0.5


@pytest.mark.parametrize("seconds", [[], [(0, 0, 1.0)], [(1, 0, 1.0), (1, 1, 1.0)]])
def test_an_incomplete_round_is_none(seconds: list[tuple[int, int, float]]) -> None:
    assert measure(_plan([[1.0, 1.0], [1.0, 1.0]]), [0], seconds) is None


@pytest.mark.parametrize(("slow", "shown"), [(1e-3, 0.1), (1e3, 10.0), (0.5, 0.5)])
def test_drift_is_clamped(slow: float, shown: float) -> None:
    plan = _plan([[1.0, 1.0]])
    found = measure(plan, [0], [(0, 0, slow), (0, 1, slow)])
    assert found is not None
    assert time_drift(predict(plan, [0]), found) == pytest.approx(shown)
