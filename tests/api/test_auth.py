"""The key: which routes ask for it, and what counts as carrying it."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from structlog.testing import capture_logs
from typer.testing import CliRunner

from api.app import create_app
from api.cli import app
from api.service import Service
from api.settings import Settings
from api.store import key_store
from api.store.database import Database
from api.store.session import UnavailableError
from api.store.tables import StoredKey
from tests.api.in_process import InProcess
from tests.api.world import Clock, World, fields

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


def test_the_openapi_document_says_so(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["security"] == [{"key": []}, {}]
    health = document["paths"]["/healthz"]["get"]
    assert health["security"] == []
    assert "421" in health["responses"]
    assert not {"401", "403"} & set(health["responses"])
    for path in ("/v1/plans", "/version", "/metrics"):
        operation = document["paths"][path]["get"]
        assert "security" not in operation
        assert {"401", "403", "421", "503"} <= set(operation["responses"])


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPLB_API_KEY", "")
    assert Settings().api_key is None


SCOPES = ("read", "plan", "node", "operate")
ROUTES = {
    ("POST", "/plan"): "plan",
    ("POST", "/plan/validate"): "plan",
    ("GET", "/solves"): "read",
    ("GET", "/plans"): "read",
    ("GET", "/plans/0"): "read",
    ("GET", "/plans/0/events"): "read",
    ("POST", "/plans/0/cancel"): "plan",
    ("GET", "/profiles"): "read",
    ("GET", "/profiles/a"): "read",
    ("PUT", "/profiles/a"): "plan",
    ("GET", "/cost-models"): "read",
    ("POST", "/nodes"): "node",
    ("GET", "/nodes"): "read",
    ("PUT", "/nodes/a/lease"): "node",
    ("GET", "/nodes/a/assignment"): "node",
    ("PUT", "/deployments/a"): "operate",
    ("DELETE", "/deployments/a"): "operate",
    ("DELETE", "/nodes/a"): "operate",
    ("DELETE", "/plans/0"): "operate",
    ("DELETE", "/profiles/a"): "operate",
    ("GET", "/deployments"): "read",
    ("GET", "/deployments/a"): "read",
    ("POST", "/measurements"): "node",
    ("GET", "/metrics"): "read",
    ("GET", "/version"): "read",
    ("GET", "/plans/0/picture"): "read",
    ("GET", "/comparison"): "read",
    ("GET", "/comparison/picture"): "read",
    ("GET", "/deployments/a/picture"): "read",
    ("GET", "/openapi.json"): "read",
    ("PATCH", "/nowhere"): "operate",
}
"""What each asks for; those of the document that are missing here fail a test."""


def _made(service: Service, name: str, *scopes: str, node: str | None = None) -> dict[str, str]:
    """The headers of a new key."""
    with service.database.write() as session:
        session.add(
            StoredKey(
                name=name,
                digest=key_store.digest_of(f"secret of {name}"),
                scopes=list(scopes),
                node=node,
                made_at=0.0,
            )
        )
    service.keyring.reload()
    return {"authorization": f"Bearer secret of {name}"}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_may_what_its_scope_says(
    client: TestClient,
    service: Service,
    scope: str,
    record_property: Callable[[str, object], None],
) -> None:
    headers = _made(service, scope, scope)
    wrong = {"authorization": "Bearer secret of nobody"}
    for (method, path), needs in ROUTES.items():
        fields(client.request(method, path), 401)
        fields(client.request(method, path, headers=wrong), 401)
        answer = client.request(method, path, headers=headers, params={"wait_s": 0})
        if needs == scope or (needs == "read" and scope in ("plan", "operate")):
            assert answer.status_code not in (401, 403), (method, path)
        else:
            fields(answer, 403)
            assert f"this asks for {needs}" in answer.text
    record_property("attempts", 3 * len(ROUTES))


def test_every_route_is_in_the_table(client: TestClient) -> None:
    bare = re.compile(r"^/v1|\{plan_id\}|\{(?:name|node_id)\}")
    written = {"/v1": "", "{plan_id}": "0", "{name}": "a", "{node_id}": "a"}
    documented = {
        (method.upper(), bare.sub(lambda found: written[found[0]], path))
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method in methods
    }
    assert documented - {("GET", "/healthz"), ("GET", "/readyz")} <= set(ROUTES)


def test_a_nodes_key_is_no_other_nodes(world: World, service: Service) -> None:
    client = world.client
    plan = world.plan()
    world.register("a")
    world.register("b")
    view = world.deploy(plan, ["a", "b"])
    batch = world.batch(plan, view, "b", [1])
    mine = _made(service, "of-a", "node", node="a")
    every = _made(service, "of-all", "node")
    entry = {"node_id": "b", "boot_id": "boot", "devices": ["h200"], "backend": "none"}
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/nodes", entry),
        ("PUT", "/nodes/b/lease", {"boot_id": "boot"}),
        ("GET", "/nodes/b/assignment?wait_s=0", None),
        ("POST", "/measurements", batch),
    ]
    for method, path, body in calls:
        answer = client.request(method, path, json=body, headers=mine)
        fields(answer, 403)
        assert "key 'of-a' may act as node 'a' alone" in answer.text
        assert client.request(method, path, json=body, headers=every).status_code == 200
    own = client.put("/nodes/a/lease", json={"boot_id": "boot"}, headers=mine)
    assert own.status_code == 200


def test_the_settings_key_stays_beside_others(locked: TestClient) -> None:
    service: Service = locked.app.state.service  # type: ignore[attr-defined]
    headers = _made(service, "reader", "read")
    assert locked.get("/plans", headers=headers).status_code == 200
    assert locked.get("/plans", headers=_bearer(f"Bearer {KEY}")).status_code == 200


def test_the_log_has_who_asked_by_the_keys_name(client: TestClient, service: Service) -> None:
    headers = _made(service, "reader", "read")
    with capture_logs() as noted:
        client.get("/v1/plans", headers=headers)
    assert [each["client"] for each in noted if each["event"] == "request"] == ["reader"]


def test_a_key_rotated_or_revoked_is_refused(
    client: TestClient, service: Service, settings: Settings
) -> None:
    run = CliRunner()

    def keys(*arguments: str) -> str:
        done = run.invoke(app, ["keys", *arguments, "--database-url", settings.database_url])
        assert done.exit_code == 0, done.output
        service.keyring.reload()
        return done.output.strip()

    def status(secret: str) -> int:
        return client.get("/plans", headers={"authorization": f"Bearer {secret}"}).status_code

    first = keys("create", "ops", "--scopes", "operate,node", "--node-id", "a")
    assert status(first) == 200
    listed = keys("list")
    assert "ops" in listed
    assert first not in listed
    second = keys("rotate", "ops")
    assert (status(first), status(second)) == (401, 200)
    other = keys("create", "other", "--scopes", "read")
    keys("revoke", "ops")
    assert (status(second), status(other)) == (401, 200)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "a b", "--scopes", "read"], "is no name"),
        (["create", "a", "--scopes", "all"], "none of read, plan, node, operate"),
        (["create", "a", "--scopes", "read", "--node-id", "n"], "keys of scope node"),
        (["rotate", "nobody"], "no key 'nobody'"),
        (["revoke", "nobody"], "no key 'nobody'"),
    ],
)
def test_a_key_that_cannot_be_is_one_line(
    settings: Settings, arguments: list[str], says: str
) -> None:
    done = CliRunner().invoke(app, ["keys", *arguments, "--database-url", settings.database_url])
    assert done.exit_code == 2
    assert says in done.output


@pytest.mark.parametrize(
    ("environment", "away", "says"),
    [
        ({"HPLB_MAX_BODY_BYTES": "none"}, False, "settings (HPLB_...): max_body_bytes"),
        ({}, True, "the database does not answer: gone"),
    ],
)
def test_keys_of_a_service_that_cannot_be_read_are_one_line(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    away: bool,
    says: str,
) -> None:
    def every(_: object) -> None:
        raise UnavailableError("gone")

    if away:
        monkeypatch.setattr(key_store, "every", every)
    environment = {"HPLB_DATABASE_URL": settings.database_url, **environment}
    done = CliRunner().invoke(app, ["keys", "list"], env=environment)
    assert done.exit_code == 2
    assert done.output.startswith(f"error: {says}")
    assert done.output.count("\n") == 1


def test_secrets_are_in_no_answer_log_or_metric(
    locked: TestClient, capfd: pytest.CaptureFixture[str]
) -> None:
    service: Service = locked.app.state.service  # type: ignore[attr-defined]
    headers = _made(service, "reader", "read")
    secrets = (KEY, "secret of reader", "secret of nobody")
    said = []
    for given in (_bearer(f"Bearer {KEY}"), headers, _bearer("Bearer secret of nobody")):
        for method, path in ROUTES:
            said.append(locked.request(method, path, headers=given, params={"wait_s": 0}).text)
    said.append(locked.get("/metrics", headers=headers).text)
    out, err = capfd.readouterr()
    with service.database.read() as session:
        said += [str(vars(key)) for key in key_store.every(session)]
    assert not [secret for secret in secrets if secret in "".join([*said, out, err])]
    assert KEY not in repr(service.settings)


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("", "localhost:8000", 200),
        ("", "127.0.0.1", 200),
        ("", "[::1]:8000", 200),
        ("", "rebound.example", 421),
        ("", "127.0.0.1.example", 421),
        ("", "", 421),
        ("planner, *.example.org", "planner:8000", 200),
        ("planner, *.example.org", "A.Example.org.", 200),
        ("planner, *.example.org", "example.org", 421),
        ("planner, *.example.org", "localhost", 421),
        ("*", "rebound.example", 200),
    ],
)
def test_hosts_that_are_answered(settings: Settings, allowed: str, host: str, status: int) -> None:
    settings = settings.model_copy(update={"allowed_hosts": allowed})
    with TestClient(create_app(settings), "http://127.0.0.1") as client:
        for path in ("/plans", "/healthz"):
            answer = client.get(path, headers={"host": host})
            assert answer.status_code == status
            assert answer.headers["content-type"] == (
                "application/json" if status == 200 else "application/problem+json"
            )


def test_a_service_with_keys_answers_to_any_host(locked: TestClient) -> None:
    headers = {**_bearer(f"Bearer {KEY}"), b"host": b"planner.example"}
    assert locked.get("/plans", headers=headers).status_code == 200
