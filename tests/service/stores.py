"""The databases that the service is tried on: SQLite, and PostgreSQL where that is installed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.postgres import Postgres, missing, serving


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for all tests of the session, each in a database of its own."""
    if why := missing():
        pytest.skip(why)
    with serving() as server:
        yield server


@dataclass(frozen=True)
class Store:
    """A new database; `server` is None where that is a SQLite file."""

    url: str
    server: Postgres | None

    def values(self, query: str) -> list[object]:
        """The first column of a query's rows."""
        engine = create_engine(self.url)
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(query)).scalars())
        finally:
            engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return Store(f"sqlite:///{tmp_path / 'hplb.db'}", None)
    server: Postgres = request.getfixturevalue("postgres")
    if not server.running:
        server.start()
    return Store(server.create(f"hplb_{abs(hash(request.node.name))}"), server)
