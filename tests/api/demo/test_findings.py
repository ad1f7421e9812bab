"""What is printed at the end: what was gained, round by round, and whether that is sure."""

from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from api.demo.findings import figures, interval, report
from api.demo.generations import CONTIGUOUS, DENSE, REFITTED, Generation, request
from api.demo.round_trip import DemoOptions, DemoResult, Loss
from profiles.catalogue import REFERENCE_PROFILE, catalogue_profile, device_profile
from profiles.cost.roofline import roofline
from profiles.fetched import SMOLLM2
from profiles.model import ModelProfile
from solver import plan

REAL = catalogue_profile(SMOLLM2.name)
LOSS = Loss(0.02, own_weights=True)


def generation(name: str, *rounds: list[float], profile: ModelProfile = REAL) -> Generation:
    asked = request(profile, ["cpu"] * 2, 2048, name)
    made = plan(profile, devices=asked.devices, context_tokens=2048, method="contiguous")
    found = Generation(name, asked, made, [3])
    found.loads_s.extend(np.array([loads]) for loads in rounds)
    return found


def found_of(
    *last: list[float], loss: Loss | None = LOSS, profile: ModelProfile = REAL
) -> dict[str, Any]:
    generations = [
        generation(DENSE, *[[9.0, 9.0]] * len(last), profile=profile),
        generation(CONTIGUOUS, *[[4.0, 2.0], [6.0, 2.0]] * (len(last) // 2), profile=profile),
        generation(REFITTED, *last, profile=profile),
    ]
    rates = {"cpu": roofline(device_profile("cpu"), "prefill")}
    options = DemoOptions(profile, devices=2, context_tokens=2048)
    return figures(options, DemoResult(generations, 0.5, rates, 0.1, loss))


def said_of(found: dict[str, Any]) -> str:
    out = StringIO()
    report(found, Console(file=out, width=200))
    return out.getvalue()


def test_two_rounds_give_a_gain_but_no_interval() -> None:
    found = found_of([3.0, 2.0], [2.0, 3.0])
    assert found["gain_measured"] == pytest.approx(1 - 2.5 / 5)
    assert found["gain_interval"] is None
    assert [row["loss"] for row in found["generations"]] == [0.0, 0.02, 0.02]
    assert [row["spread_s"] for row in found["generations"]] == pytest.approx([0, 1, 0])
    said = said_of(found)
    assert "measured 50.0 % (too few rounds for an interval)" in said
    assert "device loads: 50.0 % before refitting" in said
    base, last = found["generations"][1:]
    assert last["expected_s"] > last["refitted_s"]
    assert found["gain_predicted"] == pytest.approx(1 - last["expected_s"] / base["expected_s"])
    assert "the waits that their own error of 10.0 % makes" in said


def test_without_a_model_there_is_no_loss() -> None:
    found = found_of([3.0, 2.0], [2.0, 3.0], loss=None)
    assert [row["loss"] for row in found["generations"]] == [None] * 3
    assert found["own_weights"] is None


@pytest.mark.parametrize(
    ("profile", "policy"), [(SMOLLM2.name, "least_error"), (REFERENCE_PROFILE, "profile")]
)
def test_budgets_are_named_by_the_policy_that_was_used(profile: str, policy: str) -> None:
    found = found_of([3.0, 2.0], [2.0, 3.0], profile=catalogue_profile(profile))
    assert [row["budgets"] for row in found["generations"]] == ["dense", policy, policy]
    assert f"budgets {policy}, " in said_of(found)


def test_a_gain_in_six_rounds_of_six_is_significant() -> None:
    found = found_of(*[[3.0, 2.0]] * 6)
    assert found["gain_interval"] == pytest.approx([0.25, 0.5])
    assert "(25.0 to 50.0 %: significant)" in said_of(found)


def test_a_gain_that_one_round_of_six_lacks_is_not_significant() -> None:
    found = found_of([5.0, 2.0], *[[3.0, 2.0]] * 5)
    assert found["gain_measured"] > 0
    assert "(-25.0 to 50.0 %: not significant)" in said_of(found)


@pytest.mark.parametrize(
    ("values", "places"), [(5, None), (6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (20, (5, 14))]
)
def test_the_medians_interval_is_that_of_order_statistics(
    values: int, places: tuple[int, int] | None
) -> None:
    """Places of the tables of the sign test, at 95 %."""
    shuffled = np.random.default_rng(values).permutation(values).astype(np.float64)
    assert interval(shuffled) == (None if places is None else list(places))
