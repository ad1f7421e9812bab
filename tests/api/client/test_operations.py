"""The client against the OpenAPI document: every operation a user needs, as the document has it."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import jsonschema_rs
import pytest

from api.app import create_app
from api.client.bodies import Active, DeploymentRequest, LeaseRenewal, NodeRegistration
from api.client.conversation import Conversation
from api.client.planner_client import PlannerClient
from api.client.planner_errors import PlannerError
from api.document import operations
from api.settings import Settings
from profiles.model import ModelProfile
from solver.request import PlanRequest
from tests.api.client.test_planner_client import BATCH
from tests.api.world import plan_body, profile

Json = dict[str, Any]
NOT_FOR_PROGRAMS = {
    *("check_health", "get_metrics"),
    *("draw_plan", "draw_deployment", "draw_comparison"),
}
"""Asked by what keeps the service running, and by people's eyes."""
ASKED = PlanRequest.model_validate(plan_body())
ARGUMENTS: dict[str, dict[str, Any]] = {
    "version": {},
    "ready": {},
    "plan": {"request": ASKED},
    "start": {"request": ASKED},
    "follow": {"solve_id": "s"},
    "solve": {"request": ASKED},
    "cancel": {"solve_id": "s"},
    "solves": {},
    "check": {"request": ASKED},
    "find_plan": {"name": "p"},
    "plans": {"limit": 5, "offset": 10},
    "compare": {"plan_ids": ["p", "q"]},
    "delete_plan": {"plan_id": "p"},
    "delete_profile": {"name": "small"},
    "delete_deployment": {"name": "d"},
    "delete_node": {"node_id": "a"},
    "profiles": {},
    "profile": {"name": "small"},
    "put_profile": {"profile": ModelProfile.model_validate(profile())},
    "cost_models": {},
    "put_deployment": {
        "name": "d",
        "wanted": DeploymentRequest(plan_id="p", nodes=["a"], layers=[0], every_s=1.0),
    },
    "deployments": {},
    "deployment": {"name": "d", "generation": 3},
    "nodes": {},
    "register": {
        "node": NodeRegistration(node_id="a", boot_id="b", devices=["h200"], backend="none")
    },
    "renew": {
        "node_id": "a",
        "renewal": LeaseRenewal(boot_id="b", active=Active(deployment="d", generation=1)),
    },
    "assignment": {"node_id": "a", "known": Active(deployment="d", generation=1), "wait_s": 1.0},
    "post_measurements": {"batch": BATCH},
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Json:
    folder = tmp_path_factory.mktemp("document")
    return create_app(Settings(database_url=f"sqlite:///{folder / 'x.db'}")).openapi()


def _asked(name: str) -> httpx.Request:
    """The request that a call begins with."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(410)

    client = PlannerClient("http://planner", None, httpx.MockTransport(handler))
    with suppress(PlannerError):
        found = getattr(client, name)(**ARGUMENTS[name])
        if isinstance(found, Iterator):
            list(found)
    return seen[0]


def _operation(document: Json, request: httpx.Request) -> Json:
    for method, path, operation in operations(document):
        pattern = re.sub(r"\{\w+\}", "[^/]+", path)
        ours = request.url.path.removeprefix("/v1") if not path.startswith("/v1") else None
        if method.upper() == request.method and re.fullmatch(pattern, ours or request.url.path):
            found: Json = operation
            return found
    raise AssertionError(f"no operation {request.method} {request.url.path}")


def test_every_call_is_tried_here() -> None:
    assert set(ARGUMENTS) == {name for name in vars(Conversation) if not name.startswith("_")}


def test_every_operation_has_a_call(document: Json) -> None:
    called = {_operation(document, _asked(name))["operationId"] for name in ARGUMENTS}
    there = {operation["operationId"] for _, _, operation in operations(document)}
    assert called == there - NOT_FOR_PROGRAMS


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_what_is_sent_is_what_the_document_asks_for(document: Json, name: str) -> None:
    request = _asked(name)
    operation = _operation(document, request)
    parameters = {p["name"]: p for p in operation.get("parameters", ())}
    for key, value in request.url.params.items():
        assert parameters[key]["in"] == "query"
        told = {**parameters[key]["schema"], "components": document["components"]}
        known = [value, [value], *([float(value)] if re.fullmatch(r"[\d.]+", value) else [])]
        assert any(jsonschema_rs.is_valid(told, each) for each in known), key
    for header in {"prefer", "last-event-id"} & set(request.headers):
        assert parameters[header]["in"] == "header"
    assert ("requestBody" in operation) == bool(request.content)
    if request.content:
        assert request.headers["content-type"] == "application/json"
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
        validator.validate(httpx.Response(200, content=request.content).json())


ANSWERS = {
    "plans": "PlanPage",
    "compare": "Compared",
    "profiles": "ProfileList",
    "profile": "ModelProfile",
    "put_profile": "ProfileSummary",
    "cost_models": "CostModels",
    "put_deployment": "DeploymentView",
    "deployments": "DeploymentList",
    "deployment": "DeploymentView",
    "nodes": "NodeList",
    "register": "Lease",
    "renew": "Lease",
    "assignment": "Assignment",
    "post_measurements": "MeasurementReceipt",
    "plan": "Plan",
    "cancel": "Plan",
    "find_plan": "Plan",
    "solves": "SolveList",
    "check": "PlanCheck",
    "version": "ServiceVersion",
    "ready": "Health",
}


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_the_documents_own_answer_is_understood(document: Json, name: str) -> None:
    """The recorded example of an operation comes out of the client's call for it."""
    content = _operation(document, _asked(name))["responses"]["200"]["content"]["application/json"]
    assert content["schema"]["$ref"].endswith(f"/{ANSWERS[name]}")
    handler = httpx.MockTransport(lambda _: httpx.Response(200, json=content["example"]))
    found = getattr(PlannerClient("http://planner", None, handler), name)(**ARGUMENTS[name])
    if isinstance(found, list):
        said = next(part for part in content["example"].values() if isinstance(part, list))
        assert [each.model_dump(mode="json") for each in found] == said
    else:
        assert found.model_dump(mode="json") == content["example"]
