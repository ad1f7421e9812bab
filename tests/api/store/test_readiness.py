"""A database whose file is gone, replaced, or without room is not ready, and says why."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from api.problems import as_problem
from api.service import Service
from api.store.session import UnavailableError
from tests.api.world import World, fields, profile

on_sqlite = pytest.mark.skipif(
    "HPLB_TEST_DATABASE_URL" in os.environ, reason="a server keeps its files itself"
)


def _not_ready(client: TestClient, says: str) -> None:
    answer = client.get("/readyz")
    fields(answer, 503)
    assert says in answer.json()["detail"]
    assert client.get("/healthz").status_code == 200


@on_sqlite
def test_a_deleted_file(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/readyz").status_code == 200
    (tmp_path / "hplb.db").unlink()
    _not_ready(client, "lost with a restart")


@on_sqlite
def test_another_file(client: TestClient, tmp_path: Path, migrated: str) -> None:
    (tmp_path / "hplb.db").rename(tmp_path / "aside.db")
    shutil.copy(migrated.removeprefix("sqlite:///"), tmp_path / "hplb.db")
    _not_ready(client, "is another one now")


@on_sqlite
def test_a_full_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(f_bavail=1, f_frsize=2**20)
    monkeypatch.setattr("api.store.readiness.os.statvfs", lambda _: full)
    _not_ready(client, "the disk is full: 1 MiB left")


@pytest.mark.slow
@on_sqlite
def test_a_write_that_finds_no_room(client: TestClient, service: Service) -> None:
    with service.database.write() as session:
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar_one()
    service.database._readers.dispose()

    def limit(connection: object, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]

    event.listen(service.database._readers, "connect", limit)
    answer = client.put("/profiles/small", json=profile(layers=200, heads=64))
    fields(answer, 503)
    assert answer.json()["detail"] == "the database's disk is full; nothing was changed"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("could not extend file: No space left on device", "disk is full"),
        ("connection refused", "does not answer"),
    ],
)
def test_what_a_server_says(error: str, says: str) -> None:
    assert says in as_problem(UnavailableError(error)).detail


def test_metrics_are_told_without_a_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = world.plan()
    world.register("a", 2)
    world.deploy(plan, ["a"])
    assert "\nhplb_database_up 1.0" in world.client.get("/metrics").text

    def away() -> None:
        raise UnavailableError("gone")

    monkeypatch.setattr(world.service.database, "read", away)
    answer = world.client.get("/metrics")
    assert answer.status_code == 200
    assert "\nhplb_database_up 0.0" in answer.text
    assert "hplb_plan_solve_seconds_count" in answer.text
    assert "hplb_deployment_generation" not in answer.text


def test_figures_are_computed_anew_only_after_measurements(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    world.post(world.batch(plan, view, "a", [0, 1]))
    first = world.view()
    assert first["measured"]["rounds"] == 1

    def never(*_: object) -> None:
        raise AssertionError("computed anew")

    with monkeypatch.context() as patched:
        patched.setattr("api.deployments.views.predict", never)
        assert world.view() == first
        assert world.client.get("/metrics").status_code == 200
    world.post(world.batch(plan, view, "a", [0, 1], slow=8.0))
    assert world.view()["measured"]["rounds"] == 2
