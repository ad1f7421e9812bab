"""`plan`: a request's fields as keywords, checked as the service checks them, in its words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.settings import Settings
from profiles.catalogue import load_profile
from profiles.errors import HplbError, UnknownNameError
from solver.budgets.options import BudgetOptions
from solver.planning.planner import make_plan, plan, rates_of, request_of
from solver.request import PlacementOptions, PlanRequest, RequestError
from tests.solver.profiles import budgets_profile, faults

STEP: dict[str, Any] = {"gpus": 2, "context_tokens": 4096, "time_limit_s": 1.0}
SHIPPED = "llama-3.1-8b-synthetic"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service on a database of its own."""
    path = tmp_path_factory.mktemp("database") / "hplb.db"
    app = create_app(Settings(database_url=f"sqlite:///{path}"))
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    "fields",
    [
        {"gpus": 0},
        {"gpus": 2.0},
        {"gpus": "2"},
        {"gpus": True},
        {"gpus": None},
        {"gpus": 5000},
        {"devices": [{"type": "h200"}]},
        {"gpus": None, "devices": []},
        {"gpus": None, "devices": [{"type": "h200", "count": 0}]},
        {"device_type": "tpu"},
        {"context_tokens": 0},
        {"context_tokens": 1.5},
        {"context_tokens": "many"},
        {"context_tokens": None},
        {"workloads": [{"context_tokens": 64}]},
        {"context_tokens": None, "workloads": [{"context_tokens": 64, "weight": -1}]},
        {"context_tokens": None, "workloads": [{"batch_size": 2}, {"context_tokens": 0}]},
        {"phase": "training"},
        {"batch_size": 0},
        {"method": "magic"},
        {"objective": "best"},
        {"time_limit_s": 0},
        {"tolerance": 1},
        {"seed": -1},
        {"block_tokens": 48},
        {"block_tokens": 16, "piece_tokens": 64},
        {"deployment": "pipelined"},
        {"nonsense": 1},
        {"gpus": None, "devices": [{"type": "tpu"}]},
        {"placement": {"unit": "layer"}},
        {"placement": {"divisible": True, "equal_counts": True}},
        {"placement": {"max_copies": 2}},
        {"placement": {"divisible": True, "node_size": 3}},
        {"placement": {"divisible": True}, "method": "ilp"},
        {"placement": {"memory": {"limit_bytes": -1}}},
        {"placement": {"nonsense": 1}},
        {"budget": {"policy": "uniform"}},
        {"budget": {"policy": "uniform", "tokens": 10**6}},
        {"budget": {"policy": "magic"}},
        {"budget": {"fill": True}, "placement": {"divisible": True}},
        {"budget": {"policy": "max_min", "tokens": 512}},
        {"gpus": 0, "method": "magic", "placement": {"unit": "layer"}},
    ],
    ids=json.dumps,
)
def test_what_is_wrong_is_said_in_the_services_words(
    service: TestClient, fields: dict[str, Any]
) -> None:
    profile = budgets_profile()
    body = {"profile": profile.model_dump(mode="json"), **STEP, **fields}
    answer = service.post("/plan", json=body)
    assert answer.status_code == 422, answer.text
    with pytest.raises(HplbError) as raised:
        plan(profile, **{**STEP, **fields})
    assert str(raised.value) == answer.json()["detail"]


def test_a_name_that_is_not_shipped_is_said() -> None:
    with pytest.raises(UnknownNameError, match="unknown profile 'nobody'"):
        plan("nobody", **STEP)


def test_no_keyword_means_two_fields() -> None:
    names = [set(kind.model_fields) for kind in (PlanRequest, PlacementOptions, BudgetOptions)]
    assert len(set.union(*names)) == sum(map(len, names))


def test_fields_of_placement_and_budget_may_stand_alone() -> None:
    alone = request_of(
        budgets_profile(), **STEP, divisible=True, max_copies=2, policy="uniform", tokens=512
    )
    within = request_of(
        budgets_profile(),
        **STEP,
        placement={"divisible": True, "max_copies": 2},
        budget={"policy": "uniform", "tokens": 512},
    )
    assert alone == within
    assert (alone.placement.divisible, alone.placement.max_copies) == (True, 2)
    mixed = request_of(
        budgets_profile(), **STEP, placement=PlacementOptions(divisible=True), max_copies=2
    )
    assert mixed.placement == alone.placement


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"divisible": True, "equal_counts": True}, "placement.divisible: engines"),
        ({"unit": "layer"}, "placement.unit: Input should be 'head' or 'kv_group'"),
        ({"policy": "uniform"}, "budget.tokens: "),
        ({"placement": 5, "divisible": True}, "placement: Input should be"),
    ],
)
def test_a_field_that_stands_alone_is_named_where_it_belongs(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        plan(budgets_profile(), **STEP, **fields)


@pytest.mark.parametrize("how", ["profile", "path", "path as text"])
def test_a_profile_may_be_given_as_itself_or_by_its_file(how: str, tmp_path: Path) -> None:
    profile, path = budgets_profile(), tmp_path / "profile.json"
    profile.save(path)
    given = {"profile": profile, "path": path, "path as text": str(path)}[how]
    made = plan(given, **STEP, method="greedy")
    assert made.id == plan(profile, **STEP, method="greedy").id
    assert made.profile.digest == profile.digest
    assert faults(made) == []


def test_a_profile_may_be_given_by_its_name() -> None:
    made = plan(SHIPPED, **STEP, method="greedy")
    assert made.profile.digest == load_profile(SHIPPED).digest


def test_a_current_plan_may_be_given_as_itself_or_by_its_file(tmp_path: Path) -> None:
    current = plan(budgets_profile(), **STEP, method="contiguous")
    current.save(tmp_path / "plan.json")
    for given in (current, str(tmp_path / "plan.json")):
        moved = plan(budgets_profile(), **STEP, method="greedy", current_plan=given)
        assert moved.moving is not None
        assert moved.moving.current_plan == current.id


def test_a_request_that_only_names_its_profile_is_refused() -> None:
    """Else it could be planned for another profile than it names."""
    named = PlanRequest(profile="nonsense-name", **STEP)
    with pytest.raises(RequestError, match="profile: 'nonsense-name' has not been looked up"):
        make_plan(named, rates_of(named))
    step = {"context_tokens": 64, "profile": "nonsense-name"}
    fields = {"profile": budgets_profile(), "gpus": 2, "workloads": [step]}
    other = PlanRequest.model_validate(fields)
    with pytest.raises(RequestError, match="profile: 'nonsense-name' has not been looked up"):
        make_plan(other, rates_of(other))


def test_a_request_that_only_names_its_current_plan_is_refused() -> None:
    fields = {"profile": budgets_profile(), "placement": {"current_plan": "0" * 64}, **STEP}
    named = PlanRequest.model_validate(fields)
    with pytest.raises(RequestError, match=r"placement\.current_plan: '0+' has not been looked up"):
        make_plan(named, rates_of(named))
