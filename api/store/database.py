"""The database: an engine, two kinds of transaction, and the schema brought up to date at start."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, orm, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from profiles.errors import HplbError

BUSY_TIMEOUT_MS = 10_000


class StoreError(HplbError):
    """The database cannot be used: says which and why."""


class ConflictError(Exception):
    """Another transaction stored the same row first: what was read before is out of date."""


class UnavailableError(Exception):
    """The database does not answer; nothing was changed."""


class Session(orm.Session):
    """One transaction: what every function of the store works on."""


class Database:
    """Sessions on one database; writers are serialised where the database is SQLite."""

    def __init__(self, engine: Engine) -> None:
        self._readers = engine
        self._writers = engine.execution_options(hplb_write=True)

    @classmethod
    def open(cls, url: str) -> "Database":
        """Connect and bring the schema up to date.

        Raises StoreError for a wrong URL, a path that cannot be written, a file that is not a
        database or is damaged, and a schema newer than this program's.
        """
        try:
            parsed = make_url(url)
            if parsed.drivername in ("postgres", "postgresql"):
                parsed = parsed.set(drivername="postgresql+psycopg")
            shown = parsed.render_as_string(hide_password=True)
            in_memory = parsed.database in (None, "", ":memory:")
            if parsed.get_backend_name() == "sqlite" and in_memory:
                raise StoreError(f"database {shown} would forget everything; name a file")
            engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
        except (ArgumentError, NoSuchModuleError) as error:
            raise StoreError(f"database URL is not usable: {_first_line(error)}") from None
        except ModuleNotFoundError as error:
            raise StoreError(
                f"the database driver {error.name!r} is not installed; "
                "for PostgreSQL install HPLB with its extra, e.g. pip install -e '.[postgres]'"
            ) from None
        if engine.dialect.name == "sqlite":
            _use_wal_and_real_transactions(engine)
        database = cls(engine)
        try:
            database._bring_up_to_date(shown)
        except (DatabaseError, sqlite3.Error) as error:
            database.close()
            raise StoreError(f"database {shown} cannot be used: {_first_line(error)}") from None
        except CommandError as error:
            database.close()
            raise StoreError(
                f"database {shown} was not made by this version of hplb: {_first_line(error)}"
            ) from None
        return database

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; raises UnavailableError."""
        with _own_errors(), Session(self._readers) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: committed at the end, undone by any exception.

        Raises ConflictError and UnavailableError.
        """
        with (
            _own_errors(),
            Session(self._writers, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def answers(self) -> bool:
        """Whether the schema can be read."""
        try:
            with self.read() as session:
                session.execute(text("SELECT version_num FROM alembic_version"))
        except (SQLAlchemyError, UnavailableError):
            return False
        return True

    def close(self) -> None:
        """Close every connection."""
        self._readers.dispose()

    def _bring_up_to_date(self, shown: str) -> None:
        with self._writers.begin() as connection:
            if connection.dialect.name == "sqlite":
                verdict = str(connection.execute(text("PRAGMA quick_check(1)")).scalar())
                if verdict != "ok":
                    detail = " ".join(verdict.split())
                    raise StoreError(f"database {shown} is damaged: {detail}")
            upgrade(connection)


def without_password(url: str) -> str:
    """A database URL without its password; raises StoreError for what is none."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise StoreError(f"database URL is not usable: {_first_line(error)}") from None


@contextmanager
def _own_errors() -> Iterator[None]:
    """What the rest of the service has to know of a failed transaction, in its own words."""
    try:
        yield
    except IntegrityError as error:
        raise ConflictError(_first_line(error)) from error
    except OperationalError as error:
        raise UnavailableError(str(error)) from error


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the packaged migrations up to a revision, the newest unless said."""
    config = Config()
    config.set_main_option("script_location", str(files("api.store") / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _use_wal_and_real_transactions(engine: Engine) -> None:
    """Let SQLAlchemy, not the driver, say when a transaction begins, and take the write lock then.

    The driver would begin one only at the first INSERT: two writers that both have read first
    cannot then both go on, and one fails whatever the busy timeout.
    """

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writing = connection.get_execution_options().get("hplb_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _first_line(error: Exception) -> str:
    original = getattr(error, "orig", None) or error
    return str(original).strip().partition("\n")[0]
