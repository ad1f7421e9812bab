"""A service on a database of its own, with a clock that only the test moves."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from api.app import create_app
from api.service import Service
from api.settings import Settings
from api.store.database import Database
from api.store.tables import Table
from tests.api import in_process
from tests.api.in_process import InProcess
from tests.api.live import serving
from tests.api.slow_solver import SlowSolver
from tests.api.world import Clock, World
from tests.real_model import smollm2 as smollm2


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database migrated once: a SQLite file, or the server named by HPLB_TEST_DATABASE_URL."""
    file = tmp_path_factory.mktemp("database") / "empty.db"
    url = os.environ.get("HPLB_TEST_DATABASE_URL") or f"sqlite:///{file}"
    Database.open(url).close()
    return url


@pytest.fixture
def database_url(tmp_path: Path, migrated: str) -> str:
    """A copy of the file, or the server, emptied."""
    if migrated.startswith("sqlite:"):
        shutil.copy(migrated.removeprefix("sqlite:///"), tmp_path / "hplb.db")
        return f"sqlite:///{tmp_path / 'hplb.db'}"
    engine = create_engine(migrated)
    with engine.begin() as connection:
        tables = ", ".join(Table.metadata.tables)
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
    engine.dispose()
    return migrated


@pytest.fixture
def settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("HPLB_API_KEY", raising=False)
    return Settings(
        database_url=database_url,
        lease_s=10,
        refine_min_rounds=2,
        refine_cooldown_s=0,
        max_body_bytes=1_000_000,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(settings: Settings, clock: Clock) -> Service:
    return Service.make(settings, Database.open(settings.database_url), clock, InProcess)


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    app = create_app(service=service)
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def world(client: TestClient, service: Service, clock: Clock) -> World:
    return World(client, service, clock)


@pytest.fixture
def live(service: Service) -> Iterator[httpx.Client]:
    """A client of the service on a real socket: the test client's streams come only whole."""
    with serving(service) as client:
        yield client


@pytest.fixture
def live_world(live: httpx.Client, service: Service, clock: Clock) -> World:
    return World(live, service, clock)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowSolver]:
    """Solves end when the test says so."""
    solver = SlowSolver()
    monkeypatch.setattr(in_process, "make_plan", solver)
    yield solver
    solver.finish(100)
