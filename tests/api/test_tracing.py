"""OpenTelemetry, where its SDK is there and told where to send: requests, and solves in them."""

import os
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.service import Service
from tests.api.world import plan_body

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="pip install hplb[otel]")

from opentelemetry import trace  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is traced while the test runs; the process can have one provider once otherwise."""
    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr("api.solves.answer.tracer", provider.get_tracer("hplb"))
    return exporter


def test_a_solve_is_a_span_in_its_request(service: Service, spans: InMemorySpanExporter) -> None:
    with TestClient(create_app(service=service), "http://127.0.0.1") as client:
        asked = {"X-Request-ID": "mine-1"}
        plan = client.post("/v1/plan", json=plan_body(), headers=asked).json()
        client.get("/healthz")
    told = {span.name: span for span in spans.get_finished_spans()}
    assert set(told) == {"solve", "POST /plan"}
    solve, request = told["solve"], told["POST /plan"]
    assert solve.parent is not None
    assert solve.parent.span_id == request.context.span_id
    assert request.attributes["hplb.request"] == "mine-1"
    assert request.attributes["http.response.status_code"] == 200
    assert solve.attributes["hplb.plan"] == plan["id"]
    assert solve.attributes["hplb.method"] == "greedy"


def test_a_solve_that_fails_says_so(service: Service, spans: InMemorySpanExporter) -> None:
    with TestClient(create_app(service=service), "http://127.0.0.1") as client:
        memory = {"memory": {"limit_bytes": 1}}
        answer = client.post("/v1/plan", json=plan_body(placement=memory))
    assert answer.status_code == 422
    (solve,) = (span for span in spans.get_finished_spans() if span.name == "solve")
    assert not solve.status.is_ok
    assert solve.status.description == answer.json()["detail"]


SAID = """
from fastapi.testclient import TestClient
from opentelemetry import trace
from api.app import create_app
from api.settings import Settings

with TestClient(create_app(Settings(database_url="sqlite:///x.db")), "http://127.0.0.1"):
    print(type(trace.get_tracer_provider()).__module__)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "where"),
    [({}, "opentelemetry.trace"), ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "sdk")],
)
def test_nothing_is_traced_unless_the_environment_asks(
    tmp_path: os.PathLike[str], environment: dict[str, str], where: str
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    plain = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    told = subprocess.run(
        [sys.executable, "-c", SAID],
        cwd=tmp_path,
        env={**plain, **environment, "PYTHONPATH": root, "OTEL_BSP_EXPORT_TIMEOUT": "100"},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert where in told.stdout
