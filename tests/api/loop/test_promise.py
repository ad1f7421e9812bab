"""What a profile promises of a plan, beside interpolation by hand."""

import json

import numpy as np
import pytest

from api.loop.drift import PromisedRecovery
from api.loop.promise import Promise
from profiles.model import ModelProfile
from solver.plans import Plan
from tests.api.loop.test_drift_watch import BUDGETS, curves
from tests.api.world import CONTEXT, Json, World, profile


def promised(body: Json, plan: Plan) -> PromisedRecovery | None:
    found = Promise.of(ModelProfile.model_validate(body), plan)
    return None if found is None else found.recovery()


def test_the_selectors_curves_at_the_plans_budgets(world: World) -> None:
    plan = world.plan(profile=curves(), budget={"policy": "uniform", "tokens": 640})
    found = promised(curves(), plan)
    assert found is not None
    assert found.spread is None
    for layer, head in np.ndindex(2, 8):
        known = [1 - (1 - b / CONTEXT) ** (4.0 + head + layer) for b in BUDGETS]
        by_hand = np.interp(640, BUDGETS, known)
        assert found.recovery[layer, head] == pytest.approx(by_hand)


def test_the_oracles_where_there_are_no_others(world: World) -> None:
    body = curves()
    del body["heads"]["selected_recovery"]
    plan = world.plan(profile=body, budget={"policy": "uniform", "tokens": 640})
    found = promised(body, plan)
    assert found is not None
    np.testing.assert_allclose(found.recovery, 1.0)


def test_spread_is_interpolated_and_none_of_the_whole_context(world: World) -> None:
    body = json.loads(json.dumps(curves(spread=0.1)))  # no list shared by heads
    body["heads"]["selected_spread"][1][3][0] = [0.3, 0.2, 0.1, 0.0, 0.4]
    plan = world.plan(profile=body, budget={"policy": "uniform", "tokens": 640})
    found = promised(body, plan)
    assert found is not None
    assert found.spread is not None
    assert found.spread[0, 0] == pytest.approx(0.1)
    assert found.spread[1, 3] == pytest.approx(0.15)
    dense = world.plan(profile=body, budget={"policy": "uniform", "tokens": CONTEXT})
    whole = promised(body, dense)
    assert whole is not None
    assert whole.spread is not None
    np.testing.assert_array_equal(whole.spread, 0.0)
    np.testing.assert_array_equal(whole.recovery, 1.0)


def test_stated_budgets_promise_nothing(world: World) -> None:
    assert promised(profile(), world.plan()) is None
