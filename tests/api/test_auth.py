"""The key: which routes ask for it, and what counts as carrying it."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from api.service import Service
from api.settings import Settings
from api.store.database import Database
from tests.api.in_process import InProcess
from tests.api.world import Clock, fields

KEY = "s3cret-käy"
CLOSED = [
    ("POST", "/plan"),
    ("GET", "/plans"),
    ("GET", "/plans/0"),
    ("GET", "/profiles"),
    ("PUT", "/profiles/a"),
    ("GET", "/cost-models"),
    ("POST", "/nodes"),
    ("GET", "/nodes"),
    ("PUT", "/nodes/a/lease"),
    ("GET", "/nodes/a/assignment"),
    ("PUT", "/deployments/a"),
    ("GET", "/deployments"),
    ("POST", "/measurements"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/plans/0/picture"),
    ("GET", "/comparison"),
    ("GET", "/page"),
    ("GET", "/docs/"),
    ("GET", "/nowhere"),
    ("GET", "/healthz/"),
    ("GET", "/%2Fhealthz"),
]


@pytest.fixture
def locked(settings: Settings, clock: Clock) -> Iterator[TestClient]:
    settings = settings.model_copy(update={"api_key": SecretStr(KEY)})
    service = Service.make(settings, Database.open(settings.database_url), clock, InProcess)
    with TestClient(create_app(service=service), follow_redirects=False) as client:
        yield client


def _bearer(text: str) -> dict[bytes, bytes]:
    return {b"authorization": text.encode()}


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_every_route_asks_for_the_key(locked: TestClient, method: str, path: str) -> None:
    answer = locked.request(method, path)
    fields(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.request(method, path, headers=_bearer(f"Bearer {KEY}")).status_code != 401


@pytest.mark.parametrize("path", ["/", "/docs", "/page/app.js"])
def test_the_pages_files_do_not(locked: TestClient, path: str) -> None:
    assert locked.get(path).status_code == 200
    assert locked.head(path).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_does_not(locked: TestClient, path: str) -> None:
    assert locked.get(path).json() == {"status": "ok"}
    assert locked.head(path).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {KEY}",
        KEY,
        "Bearer wrong",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
    ],
)
def test_a_wrong_key_is_refused(locked: TestClient, header: str) -> None:
    fields(locked.get("/plans", headers=_bearer(header)), 401)


def test_the_scheme_is_case_insensitive(locked: TestClient) -> None:
    assert locked.get("/plans", headers=_bearer(f"bearer {KEY}")).status_code == 200


def test_the_openapi_document_says_so_only_where_a_key_is_set(
    locked: TestClient, client: TestClient
) -> None:
    document = locked.get("/openapi.json", headers=_bearer(f"Bearer {KEY}")).json()
    assert document["paths"]["/plans"]["get"]["security"]
    assert "security" not in document["paths"]["/healthz"]["get"]
    assert "security" not in client.get("/openapi.json").json()["paths"]["/plans"]["get"]


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPLB_API_KEY", "")
    assert Settings().api_key is None
