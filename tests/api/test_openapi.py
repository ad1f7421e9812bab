"""The OpenAPI document against the running service, with generated requests."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from api.app import create_app
from api.service import Service
from api.settings import Settings
from api.store.database import Database
from tests.api.in_process import InProcess

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


@pytest.fixture
def document(settings: Settings) -> schemathesis.BaseSchema:
    # Its requests name a host of their own.
    settings = settings.model_copy(update={"allowed_hosts": "*"})
    service = Service.make(settings, Database.open(settings.database_url), make_solver=InProcess)
    loaded = schemathesis.openapi.from_asgi("/openapi.json", create_app(service=service))
    # Solves and long polls take the time they are given; their own tests cover them.
    return loaded.exclude(path=["/v1/plan", "/v1/nodes/{node_id}/assignment"])


def test_answers_are_those_of_the_document(document: schemathesis.BaseSchema) -> None:
    checked = set()
    for operation in (result.ok() for result in document.get_all_operations()):

        @settings(
            max_examples=12,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def answers(case: Case) -> None:
            case.call_and_validate(checks=CHECKS)

        answers()
        checked.add(operation.label)
    assert {"PUT /v1/deployments/{name}", "POST /v1/measurements", "GET /metrics"} <= checked
    assert {"GET /v1/plans/{plan_id}/events", "POST /v1/plans/{plan_id}/cancel"} <= checked


def test_what_is_under_way_is_in_the_document(document: schemathesis.BaseSchema) -> None:
    paths = document.raw_schema["paths"]
    accepted = paths["/v1/plan"]["post"]["responses"]["202"]
    assert "SolveAccepted" in str(accepted)
    assert "Retry-After" in accepted["headers"]
    assert "SolveStatus" in str(paths["/v1/plans/{plan_id}"]["get"]["responses"]["202"])
    followed = paths["/v1/plans/{plan_id}/events"]["get"]
    assert set(followed["responses"]["200"]["content"]) == {"text/event-stream"}
    assert "incumbent" in followed["responses"]["200"]["description"]
    assert "last-event-id" in {p["name"] for p in followed["parameters"]}
    assert "prefer" in {p["name"] for p in paths["/v1/plan"]["post"]["parameters"]}
