"""A service on a database of its own, with a clock that only the test moves."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.service import Service
from api.settings import Settings
from api.store.database import Database
from tests.api.world import Clock, World


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once: each test starts on a copy."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    Database.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def settings(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("HPLB_API_KEY", raising=False)
    shutil.copy(empty_database, tmp_path / "hplb.db")
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'hplb.db'}",
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
    return Service.make(settings, Database.open(settings.database_url), clock)


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service=service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def world(client: TestClient, service: Service, clock: Clock) -> World:
    return World(client, service, clock)
