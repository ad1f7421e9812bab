"""Of a list only the first fault is told, however deep it lies and whatever holds it."""

from typing import Any

import pytest
from pydantic import ValidationError

from api.client.bodies import MeasurementBatch
from profiles.model import ModelProfile
from solver.plans import Plan
from solver.request import PlanRequest


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (ModelProfile, {"heads": {"form": "budgets", "tokens": [["x"] * 9] * 9}}, "heads"),
        (ModelProfile, {"heads": {"form": "rules", "beta": [["x"] * 9] * 9}}, "heads"),
        (ModelProfile, {"architecture": {"windows": ["x"] * 9}}, "architecture"),
        (PlanRequest, {"devices": [{"type": 1}] * 9}, "devices"),
        (PlanRequest, {"workloads": [{"context_tokens": 0}] * 9}, "workloads"),
        (Plan, {"costs": {"head_s": [[["x"] * 9] * 9] * 9}}, "costs"),
        (Plan, {"cost_model": {f"type {i}": i for i in range(9)}}, "cost_model"),
        (MeasurementBatch, {"samples": ["x"] * 9}, "samples"),
    ],
)
def test_only_the_first(kind: Any, body: object, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    of_the_list = [
        f for f in caught.value.errors() if f["loc"][0] == field and f["type"] != "missing"
    ]
    assert len(of_the_list) == 1


@pytest.mark.parametrize("figure", [float("inf"), float("nan")])
def test_a_plan_has_no_figure_that_json_lacks(figure: float) -> None:
    for field in ("tolerance", "imbalance", "bubble_ratio", "makespan_s"):
        with pytest.raises(ValidationError) as caught:
            Plan.model_validate({field: figure})
        assert [f["type"] for f in caught.value.errors() if f["loc"] == (field,)] == [
            "finite_number"
        ]
