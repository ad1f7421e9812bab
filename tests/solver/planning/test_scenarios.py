"""Several workloads of one placement: profiles, samples, weights, and what does not fit."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from profiles.catalogue import catalogue_rates
from profiles.heads import SamplesForm
from profiles.model import ModelProfile
from solver.budgets.curves import MeasuredCurves, RecoveryCurves
from solver.planning.planner import Known
from solver.planning.scenarios import WorkloadError, scenarios
from solver.request import PlanRequest
from tests.solver.budgets.builders import profile_of, random_curves
from tests.solver.problems import soon
from tests.solver.profiles import budgets_profile, faults, plan_of


def samples_profile() -> ModelProfile:
    """Two requests of 2,048 and 4,096 tokens on the shape of `budgets_profile`."""
    like = budgets_profile()
    shape = like.architecture
    kept = np.stack([np.full((shape.layers, shape.query_heads), t) for t in (512.0, 2048.0)])
    heads = SamplesForm(context_tokens=[2048, 4096], task=["a", "b"], kept_tokens=kept.tolist())
    return like.model_copy(update={"heads": heads})


def steps_of(profile: ModelProfile, workloads: list[dict[str, object]]) -> list[Known]:
    rates = catalogue_rates(["h200"], "prefill")
    return [Known(profile, rates) for _ in workloads]


def found(profile: ModelProfile, workloads: list[dict[str, object]]) -> list[list[int]]:
    request = PlanRequest.model_validate({"profile": profile, "gpus": 2, "workloads": workloads})
    steps = scenarios(request.settled(), steps_of(profile, workloads), soon())
    assert sum(step.weight for step in steps) == pytest.approx(1.0)
    return [sorted(set(step.budgets.tokens.ravel().tolist())) for step in steps]


def test_a_sample_states_what_its_request_kept() -> None:
    workloads: list[dict[str, object]] = [
        {"context_tokens": 2048, "sample": 0},
        {"context_tokens": 4096, "sample": 1, "weight": 3},
        {"context_tokens": 8192, "sample": 0},
    ]
    assert found(samples_profile(), workloads) == [[512], [2048], [2048]]


@pytest.mark.parametrize(
    ("profile", "sample", "words"),
    [(budgets_profile(), 0, "form 'budgets'"), (samples_profile(), 2, "requests 0 to 1")],
)
def test_a_sample_that_is_not_there_is_named(
    profile: ModelProfile, sample: int, words: str
) -> None:
    with pytest.raises(WorkloadError, match=rf"workloads\.0\.sample.*{words}"):
        found(profile, [{"context_tokens": 2048, "sample": sample}])


def test_profiles_of_two_models_do_not_share_a_placement() -> None:
    request = PlanRequest.model_validate(
        {
            "profile": "a",
            "gpus": 2,
            "workloads": [{"context_tokens": 64}] * 2,
            "budget": {"policy": "profile"},
        }
    )
    rates = catalogue_rates(["h200"], "prefill")
    other = budgets_profile(heads=16)
    with pytest.raises(WorkloadError, match=r"workloads\.1\.profile.*another architecture"):
        scenarios(request, [Known(budgets_profile(), rates), Known(other, rates)], soon())


def test_prefill_and_decode_together_balance_better_than_either_alone() -> None:
    profile = budgets_profile(layers=4, heads=16, kv_heads=16, seed=2)
    both = [
        {"context_tokens": 8192, "phase": "prefill", "weight": 1},
        {"context_tokens": 8192, "phase": "decode", "batch_size": 64, "weight": 500},
    ]
    plan = plan_of(profile, workloads=both, tolerance=2e-3, time_limit_s=20)
    assert faults(plan) == []
    [decode] = plan.other_workloads
    assert plan.weight + decode.weight == pytest.approx(1)
    for one in both:
        alone = plan_of(profile, workloads=[one])
        as_planned = plan_of(
            profile,
            workloads=both,
            placement={"current_plan": alone, "amortise_steps": 1},
            method="contiguous",
        )
        assert as_planned.moving is not None
        assert plan.makespan_s <= as_planned.moving.current_makespan_s * (1 + 2e-3)


def test_the_worst_case_is_no_worse_than_the_mean_plans_worst() -> None:
    profile = budgets_profile(layers=2, heads=8, kv_heads=8, seed=5)
    steps = [{"context_tokens": c, "weight": w} for c, w in ((4096, 1.0), (8192, 3.0))]
    mean = plan_of(profile, workloads=steps)
    worst = plan_of(profile, workloads=steps, objective="worst")
    largest = max(other.makespan_s for other in mean.other_workloads)
    assert worst.makespan_s <= largest * (1 + 1e-3)
    assert worst.rules.objective == "worst"


@pytest.mark.parametrize(
    ("asked", "made", "interpolated"),
    [
        ({"context_tokens": 4096}, 1, 1),
        ({"context_tokens": 4096, "budget": {"fill": True}}, 1, 1),
        ({"context_tokens": 4096, "budget": {"fill": True, "margin": 0.5}}, 1, 2),
        ({"workloads": [{"context_tokens": 4096}, {"context_tokens": 2048}]}, 1, 2),
        ({"context_tokens": 4096, "budget": {"policy": "elastic", "density": 0.5}}, 1, 3),
    ],
)
def test_curves_are_made_once_a_request(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], made: int, interpolated: int
) -> None:
    """Arrays once for all workloads, and curves once for each context and margin."""
    seen = Counter[str]()
    of, at = MeasuredCurves.of, MeasuredCurves.at

    def counted_of(*arguments: Any) -> MeasuredCurves:
        seen["of"] += 1
        return of(*arguments)

    def counted_at(*arguments: Any) -> RecoveryCurves:
        seen["at"] += 1
        return at(*arguments)

    monkeypatch.setattr(MeasuredCurves, "of", counted_of)
    monkeypatch.setattr(MeasuredCurves, "at", counted_at)
    curves = random_curves(0)
    spread = (0.1 * np.array(curves.recovery)).tolist()
    profile = profile_of(curves.model_copy(update={"spread": spread}).model_dump(), 2, 8)
    plan_of(profile, gpus=2, method="greedy", **asked)
    assert (seen["of"], seen["at"]) == (made, interpolated)
