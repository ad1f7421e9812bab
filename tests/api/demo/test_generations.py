"""What is asked of the planner: one kind of sparse budgets, at most 30 % of dense's pairs."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from api.client.bodies import DeploymentView
from api.demo.generations import (
    DENSITY,
    SPARSE,
    Generation,
    bubble,
    expected_makespan,
    makespan,
    request,
    sparse_budgets,
)
from profiles.catalogue import REFERENCE_PROFILE, catalogue_profile, device_profile
from profiles.cost.roofline import roofline
from profiles.fetched import SMOLLM2
from profiles.sizes import causal_pieces
from solver import plan
from solver.budgets.options import BudgetOptions

REAL = catalogue_profile(SMOLLM2.name)


@pytest.mark.parametrize("context", [2048, 4096])
def test_budgets_are_those_of_least_error_at_thirty_per_cent(context: int) -> None:
    budgets = sparse_budgets(REAL, context)
    assert (budgets.policy, budgets.scope) == ("least_error", "model")
    asked = request(REAL, ["cpu"] * 4, context, "contiguous")
    made = plan(REAL, devices=asked.devices, context_tokens=context, budget=budgets, method="snake")
    density = Generation("snake", asked, made, [0]).density
    assert 0.9 * DENSITY < density <= DENSITY
    assert budgets.tokens is not None
    step = made.workload.workload
    sizes = (step.context_blocks, step.block_pieces)
    one_more = causal_pieces(budgets.tokens // step.piece_tokens + 1, *sizes)
    assert one_more > DENSITY * causal_pieces(step.context_pieces, *sizes)


def test_a_profile_without_errors_keeps_its_own_budgets() -> None:
    profile = catalogue_profile(REFERENCE_PROFILE)
    asked = request(profile, ["cpu"], 1024, "contiguous").settled()
    assert asked.budget == BudgetOptions(policy="profile", scope="layer", as_chosen=True)


def test_all_methods_are_asked_with_the_same_budgets() -> None:
    asked = {name: request(REAL, ["cpu"], 2048, name) for name in ("dense", *SPARSE, "refitted")}
    assert len({asked[name].budget.model_dump_json() for name in (*SPARSE, "refitted")}) == 1
    assert asked["dense"].budget.tokens == 2048
    assert [asked[name].method for name in SPARSE] == ["contiguous", "greedy", "cp_sat", "auto"]
    assert [asked[name].placement.divisible for name in SPARSE] == [False, False, False, True]
    assert asked["refitted"] == asked["divided"]


def test_medians_over_rounds_device_by_device() -> None:
    asked = request(REAL, ["cpu"] * 2, 2048, "contiguous")
    made = plan(REAL, devices=asked.devices, context_tokens=2048, method="contiguous")
    found = Generation("contiguous", asked, made, [3])
    found.loads_s.extend(np.array([loads]) for loads in ([1.0, 4.0], [3.0, 2.0], [2.0, 9.0]))
    assert found.measured_s.tolist() == [[2.0, 4.0]]
    assert found.rounds_s.tolist() == [4.0, 3.0, 9.0]
    assert bubble(found.measured_s) == pytest.approx(0.25)
    error = np.abs(found.planned_s - found.measured_s) / found.measured_s
    assert found.error == pytest.approx(error.mean())


@pytest.mark.parametrize("error", [0.0, 0.02, 0.1])
def test_the_expected_makespan_is_the_mean_of_what_is_drawn(error: float) -> None:
    loads_s = np.array([[3.0, 3.0, 2.95, 3.0], [4.0, 2.0, 1.0, 0.0]])
    drawn = np.random.default_rng(0).normal(loads_s, error * loads_s, (20_000, *loads_s.shape))
    mean = np.mean([makespan(loads) for loads in drawn])
    assert expected_makespan(loads_s, error) == pytest.approx(mean, rel=2e-3)
    # The level layer waits, the other hardly.
    assert error < 0.05 or mean > 1.03 * makespan(loads_s)


def test_residuals_are_of_loaded_devices_by_the_rates_given() -> None:
    asked = request(REAL, ["cpu"] * 10, 2048, "contiguous")
    made = plan(REAL, devices=asked.devices, context_tokens=2048, method="contiguous")
    rates = {"cpu": roofline(device_profile("cpu"), "prefill")}
    found = Generation("contiguous", asked, made, [3])
    again_s = found.again_s(rates)
    found.loads_s.extend([1.1 * again_s, 1.3 * again_s, 1.2 * again_s])
    residuals = found.residuals(rates)
    assert 0 < len(residuals) == np.count_nonzero(again_s) < again_s.size
    assert residuals == pytest.approx(0.2)


def test_a_device_without_work_counts_neither_as_late_nor_as_wrong() -> None:
    asked = request(REAL, ["cpu"] * 10, 2048, "contiguous")
    made = plan(REAL, devices=asked.devices, context_tokens=2048, method="contiguous")
    found = Generation("contiguous", asked, made, [3])
    idle = found.planned_s[0] == 0
    assert idle.any()
    loads: list[list[float | None]] = [[None] * 10 for _ in made.layers]
    loads[3] = np.where(idle, 5.0, found.planned_s[0] / 2).tolist()
    view = SimpleNamespace(measured=SimpleNamespace(device_loads_s=loads), generation=7)
    found.take(cast("DeploymentView", view))
    assert found.numbers == [7]
    assert found.rounds_s.tolist() == [found.planned_s.max() / 2]
    assert found.error == pytest.approx(1)
