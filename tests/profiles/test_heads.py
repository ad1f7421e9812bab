from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from profiles.heads import MAX_TOKENS, BudgetsForm, CurvesForm, RulesForm, SamplesForm

NAN, INF = float("nan"), float("inf")
CURVES: dict[str, Any] = {
    "context_tokens": [128, 256],
    "budget_tokens": [[64, 128], [64, 256]],
    "recovery": [[[[0.5, 1.0], [0.4, 1.0]], [[0.6, 1.0], [0.7, 1.0]]]],
}
SAMPLES: dict[str, Any] = {
    "context_tokens": [100, 200],
    "task": ["a", "b"],
    "kept_tokens": [[[10, 100]], [[0, 200]]],
}


def test_shapes_are_layers_by_heads() -> None:
    assert BudgetsForm(tokens=[[1, 2, 3], [4, 5, 6]]).shape() == (2, 3)
    assert RulesForm(alpha_tokens=[[-64, 0]], beta=[[1, 0.5]]).shape() == (1, 2)
    assert CurvesForm(**CURVES).shape() == (1, 2)
    assert SamplesForm(**SAMPLES).shape() == (1, 2)


@pytest.mark.parametrize("bad", [NAN, INF, 0, -5, MAX_TOKENS + 1])
def test_a_bad_budget_is_placed(bad: float) -> None:
    with pytest.raises(ValidationError, match="tokens: layer 1, head 2: must be a number from 1"):
        BudgetsForm(tokens=[[1, 2, 3], [4, 5, bad]])


@pytest.mark.parametrize("tokens", [[], [[]], [[1, 2], [3]]])
def test_empty_and_ragged_budgets(tokens: list[list[float]]) -> None:
    with pytest.raises(ValidationError, match=r"tokens: (must be a full array|ragged)"):
        BudgetsForm(tokens=tokens)


@pytest.mark.parametrize(
    ("alpha", "beta", "message"),
    [
        ([[NAN]], [[0.5]], "alpha_tokens: layer 0, head 0"),
        ([[-INF]], [[0.5]], "alpha_tokens: layer 0, head 0"),
        ([[2.0**40]], [[0.5]], "alpha_tokens: layer 0, head 0"),
        ([[0]], [[1.01]], "beta: layer 0, head 0: must be a share"),
        ([[0]], [[-0.1]], "beta: layer 0, head 0: must be a share"),
        ([[0]], [[NAN]], "beta: layer 0, head 0: must be a share"),
        ([[0, 0]], [[1]], r"beta: shape \(1, 1\) is not alpha_tokens' \(1, 2\)"),
    ],
)
def test_bad_rules(alpha: list[list[float]], beta: list[list[float]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RulesForm(alpha_tokens=alpha, beta=beta)


RATIO = {"mean": 2.0, "low": 1.0, "high": 3.0, "context_tokens": 128, "prompts": 4}


def test_what_errors_cost_is_said_where_it_is_known() -> None:
    erring = {**CURVES, "output_error": CURVES["recovery"]}
    assert "loss_per_error" not in CurvesForm(**erring).model_dump()
    known = CurvesForm(**erring, loss_per_error=RATIO)
    assert known.model_dump()["loss_per_error"] == RATIO


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": 0.5}, "mean: 0.5 must be above 0 and from low, 1.0, to high, 3.0"),
        ({"mean": 0.0, "low": 0.0}, "mean: 0.0 must be above 0"),
        ({"high": INF}, "high"),
        ({"low": -1.0}, "low"),
        ({"prompts": 1}, "prompts"),
    ],
)
def test_a_bad_cost_of_errors(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CurvesForm(**CURVES, output_error=CURVES["recovery"], loss_per_error={**RATIO, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_per_error": RATIO}, "loss_per_error: is per unit of output_error, which is miss"),
        ({"context_tokens": [256, 128]}, "context_tokens: must be strictly increasing"),
        ({"context_tokens": [0, 128]}, "context_tokens"),
        ({"context_tokens": [128]}, "does not fit 1 contexts"),
        ({"budget_tokens": [[128, 64], [64, 256]]}, "budget_tokens: must be strictly increasing"),
        ({"budget_tokens": [[64], [64, 256]]}, "budget_tokens: ragged"),
        ({"recovery": [[[[0.5, 1.0]]]]}, r"recovery: shape \(1, 1, 1, 2\) does not fit 2"),
        (
            {"recovery": [[[[0.5, 1.0], [0.4, 1.1]]]]},
            "recovery: layer 0, head 0, context 1, point 1: must be a share",
        ),
        ({"recovery": [[[[0.5, NAN], [0.4, 1]]]]}, "recovery: layer 0, head 0, context 0, point 1"),
        ({"recovery": []}, "recovery: must be a full array"),
    ],
)
def test_bad_curves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CurvesForm(**CURVES | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept_tokens": [[[10, 101]], [[0, 200]]]}, "kept_tokens: request 0, layer 0, head 1"),
        ({"kept_tokens": [[[10, 100]], [[-1, 200]]]}, "kept_tokens: request 1, layer 0, head 0"),
        ({"kept_tokens": [[[10, NAN]], [[1, 200]]]}, "kept_tokens: request 0, layer 0, head 1"),
        ({"kept_tokens": [[[10, 100]]]}, "1 requests of figures and 2 tasks for 2"),
        ({"task": ["a"]}, "2 requests of figures and 1 tasks for 2"),
    ],
)
def test_bad_samples(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SamplesForm(**SAMPLES | changes)


@given(st.lists(st.lists(st.floats(1, MAX_TOKENS), min_size=3, max_size=3), min_size=1, max_size=4))
def test_any_budgets_survive_json(tokens: list[list[float]]) -> None:
    form = BudgetsForm(tokens=tokens)
    assert BudgetsForm.model_validate_json(form.model_dump_json()) == form


def test_curves_as_arrays_are_made_once_and_of_no_copy_with_others() -> None:
    form = CurvesForm(context_tokens=[64], budget_tokens=[[16]], recovery=[[[[0.5]]]])
    same = form.model_copy()
    assert form.arrays is form.arrays
    assert form == same == CurvesForm.model_validate(form.model_dump())
    assert form.model_dump() == same.model_dump()
    other = form.model_copy(update={"recovery": [[[[0.25]]]]})
    assert other.arrays.recovery.tolist() == [[[[0.25]]]]
    with pytest.raises(ValueError, match="read-only"):
        form.arrays.recovery[:] = 1
