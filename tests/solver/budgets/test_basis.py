"""Whose curves budgets are chosen by, how far below the mean, and what is reported."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from profiles.model import ModelProfile
from solver.budgets.allocate import Budgets
from solver.budgets.errors import BudgetError
from solver.budgets.options import BudgetOptions
from tests.solver.budgets.builders import SIZED, curved, given_to, profile_of, random_curves

STATED = {"form": "budgets", "tokens": [[100.0]]}


def measured(**left_out: None) -> ModelProfile:
    """Selected curves lie below the oracle's and dip; spreads grow from head to head."""
    form = random_curves(0)
    oracle = np.array(form.recovery)
    selected = 0.9 * oracle
    selected[..., 3] = selected[..., 2] - 0.01
    spread = np.linspace(0.0, 0.8, 8)[:, None, None] * oracle * (1 - oracle)
    fields = {
        "selected_recovery": selected.tolist(),
        "spread": spread.tolist(),
        "selected_spread": (spread / 2).tolist(),
        **left_out,
    }
    return profile_of(form.model_copy(update=fields).model_dump(), 2, 8)


def recovered(budgets: Budgets) -> np.ndarray:
    assert budgets.recovery is not None
    return budgets.recovery


def test_selected_curves_are_the_default_where_they_were_measured() -> None:
    by_default = given_to(measured(), policy="recovery", recovery=0.7)
    selected = given_to(measured(), policy="recovery", recovery=0.7, curve="selected")
    oracle = given_to(measured(), policy="recovery", recovery=0.7, curve="oracle")
    assert (by_default.tokens == selected.tokens).all()
    assert (by_default.curve, oracle.curve) == ("selected", "oracle")
    assert (selected.tokens >= oracle.tokens).all()
    assert (selected.tokens > oracle.tokens).any()
    without = measured(selected_recovery=None, selected_spread=None)
    fallen_back = given_to(without, policy="recovery", recovery=0.7)
    assert fallen_back.curve == "oracle"
    assert (fallen_back.tokens == oracle.tokens).all()
    assert fallen_back.warnings == ()


def test_stated_budgets_have_no_curve() -> None:
    budgets = given_to(profile_of(STATED, 1, 1))
    assert (budgets.curve, budgets.recovery) == (None, None)


def test_a_dip_of_the_selected_curve_is_levelled() -> None:
    found = recovered(given_to(measured(), policy="uniform", tokens=1024))
    shorter = recovered(given_to(measured(), policy="uniform", tokens=512))
    assert found == pytest.approx(shorter)


def test_a_margin_asks_for_more_where_prompts_differ_and_reports_the_mean() -> None:
    plain = given_to(measured(), policy="recovery", recovery=0.7)
    safe = given_to(measured(), policy="recovery", recovery=0.7, margin=1.0)
    assert (safe.tokens >= plain.tokens).all()
    assert (safe.tokens[:, 0] == plain.tokens[:, 0]).all()
    assert (safe.tokens[:, 4:] > plain.tokens[:, 4:]).any()
    assert (recovered(safe) >= recovered(plain)).all()
    blocks = (safe.tokens // 64).astype(np.int64)
    again = given_to(measured(), policy="uniform", tokens=int(safe.tokens[0, 5]))
    assert blocks[0, 5] * 64 == safe.tokens[0, 5]
    assert recovered(safe)[0, 5] == recovered(again)[0, 5]


def test_a_margin_above_all_that_is_recovered_asks_for_everything() -> None:
    budgets = given_to(measured(), policy="recovery", recovery=0.9, margin=100.0)
    assert (budgets.tokens[:, 1:] > 0.85 * 8192).all()


@pytest.mark.parametrize("policy", ["profile", "recovery", *SIZED])
def test_every_policy_goes_by_the_curve(policy: Any) -> None:
    seconds = 0.1 if policy == "elastic" else 30
    for curve in ("selected", "oracle"):
        budgets = given_to(measured(), policy=policy, tokens=1024, curve=curve, seconds=seconds)
        assert budgets.curve == curve
        assert ((recovered(budgets) > 0) & (recovered(budgets) <= 1)).all()
    if policy not in ("uniform", "least_error"):
        safe = given_to(measured(), policy=policy, tokens=1024, margin=1.0, seconds=seconds)
        plain = given_to(measured(), policy=policy, tokens=1024, seconds=seconds)
        assert (safe.tokens != plain.tokens).any()


@pytest.mark.parametrize(
    ("profile", "options", "words"),
    [
        (
            measured(selected_recovery=None),
            {"curve": "selected"},
            "curve: profile 'tested' has no selected_recovery; use 'oracle'",
        ),
        (measured(selected_spread=None), {"margin": 1.0}, "margin: .* has no selected_spread"),
        (measured(spread=None), {"margin": 1.0, "curve": "oracle"}, "has no spread; use margin 0"),
        (curved(), {"margin": 0.5}, "0.5 standard deviations, but profile 'tested' has no spread"),
        (profile_of(STATED, 1, 1), {"curve": "oracle"}, "curve: .* the form 'budgets'"),
        (profile_of(STATED, 1, 1), {"margin": 1.0}, "margin: .* the form 'budgets'"),
    ],
)
def test_what_was_not_measured_is_refused(
    profile: ModelProfile, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(BudgetError, match=words):
        given_to(profile, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"margin": -1},
        {"margin": float("nan")},
        {"margin": float("inf")},
        {"curve": "best"},
        {"floor_tokens": 0},
        {"floor_tokens": -16},
        {"floor_tokens": 2**60},
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        BudgetOptions.model_validate({"policy": "max_min", "tokens": 512, **options})
