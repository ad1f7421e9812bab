"""Which budgets a request gets that names no policy: what its profile has the evidence for."""

import pytest

from profiles.catalogue import catalogue_profile
from profiles.fetched import SMOLLM2
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from solver import plan
from solver.budgets.options import LOSS, BudgetOptions
from solver.request import PlanRequest, RequestError
from tests.solver.profiles import budgets_profile

REAL = catalogue_profile(SMOLLM2.name)
LAYERWISE = {"policy": "profile", "scope": "layer"}
LEAST = {"policy": "least_error", "scope": "model"}


def without(profile: ModelProfile, *figures: str) -> ModelProfile:
    assert isinstance(profile.heads, CurvesForm)
    heads = profile.heads.model_copy(update=dict.fromkeys(figures))
    return profile.model_copy(update={"heads": heads})


UNCALIBRATED = without(REAL, "loss_per_error")
WITHOUT_ERRORS = without(REAL, "loss_per_error", "output_error", "gradient_error")


@pytest.mark.parametrize(
    ("profile", "asked", "settled"),
    [
        (REAL, {}, {**LEAST, "loss": LOSS}),
        (REAL, {"loss": 0.1}, {**LEAST, "loss": 0.1}),
        (REAL, {"tokens": 512}, {**LEAST, "tokens": 512}),
        (REAL, {"tokens": 512, "scope": "layer"}, {**LEAST, "scope": "layer", "tokens": 512}),
        (REAL, {"recovery": 0.95}, {**LAYERWISE, "recovery": 0.95}),
        (REAL, {"margin": 1.0}, {**LAYERWISE, "margin": 1.0}),
        (REAL, {"policy": "profile"}, LAYERWISE),
        (
            REAL,
            {"policy": "max_min", "tokens": 512},
            {"policy": "max_min", "tokens": 512, "scope": "layer"},
        ),
        (UNCALIBRATED, {}, LAYERWISE),
        (UNCALIBRATED, {"tokens": 512}, {**LEAST, "tokens": 512}),
        (WITHOUT_ERRORS, {}, LAYERWISE),
        (budgets_profile(), {}, LAYERWISE),
    ],
)
def test_what_is_left_open(
    profile: ModelProfile, asked: dict[str, object], settled: dict[str, object]
) -> None:
    request = PlanRequest.checked(profile=profile, gpus=2, context_tokens=2048, budget=asked)
    found = request.settled().budget
    assert found == BudgetOptions.model_validate(settled)
    assert found.settled(profile) == found


@pytest.mark.parametrize(
    ("profile", "asked", "words"),
    [
        (WITHOUT_ERRORS, {"tokens": 512}, "budget.tokens: policy 'profile' takes none"),
        (REAL, {"tokens": 512, "margin": 1.0}, "budget.margin: policy 'least_error'"),
        (budgets_profile(), {"floor_tokens": 64}, "budget.floor_tokens: is for max_min"),
    ],
)
def test_what_then_does_not_fit_is_refused(
    profile: ModelProfile, asked: dict[str, object], words: str
) -> None:
    request = PlanRequest.checked(profile=profile, gpus=2, context_tokens=2048, budget=asked)
    with pytest.raises(RequestError, match=words):
        request.settled()


def test_profiles_of_workloads_must_all_have_what_it_takes() -> None:
    steps = [{"context_tokens": 2048}, {"context_tokens": 1024, "profile": UNCALIBRATED}]
    request = PlanRequest.checked(profile=REAL, gpus=2, workloads=steps)
    assert request.settled().budget.policy == "profile"


def test_a_default_plan_is_that_of_the_policy_it_stands_for() -> None:
    left_open = plan(REAL, gpus=2, context_tokens=2048, method="greedy")
    asked = plan(REAL, gpus=2, context_tokens=2048, method="greedy", budget={**LEAST, "loss": LOSS})
    assert left_open.loss is not None
    assert left_open.loss.bound == LOSS
    assert left_open.id == asked.id
