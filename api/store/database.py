"""The database: readers, writers one after another, and the schema brought up to date at start."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from api.store.election import Election, election
from api.store.session import (
    Session,
    StoreError,
    UnavailableError,
    first_line,
    own_errors,
)
from api.store.write_queue import PATIENCE_S, RETRY_EVERY_S, Turn, WriteQueue
from solver.plans import Plan

READERS = 16
"""Connections; SQLite's, which wait for nobody, are as many as the threads that ask."""
READ_PATIENCE_S = 5.0
UNREACHED = {
    "connect_timeout": int(READ_PATIENCE_S),
    "tcp_user_timeout": int(1000 * READ_PATIENCE_S),
    "keepalives_idle": 5,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
"""libpq's, of a server that a cut network hides: it refuses nothing, and TCP alone would ask a
quarter of an hour before it gave up."""
START_PATIENCE_S = 10.0
BUSY_TIMEOUT_MS = 1000
"""Short, for the writer tries again, and between two attempts sees that the service stops."""
MIGRATION_LOCK = 0x48504C42_0001
"""Of PostgreSQL's advisory locks: two planners that start at once migrate one after the other."""

BEGAN = "hplb_began"
"""When a connection's statement was handed to the database."""
Observe = Callable[[str, float], None]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Database:
    """Sessions on one database. Reading never waits for writing.

    Writers of this process come one after another where the database is SQLite; each way of writing
    waits for a database that is locked, full or away, and gives up with UnavailableError.
    """

    def __init__(self, engine: Engine) -> None:
        self._readers = engine
        self._writers = engine.execution_options(hplb_write=True)
        self._turn = Turn() if engine.dialect.name == "sqlite" else nullcontext()
        self._closed = Event()
        self._plans: dict[str, Plan] = {}
        self._queue = WriteQueue(lambda: self.write(patience_s=0))
        self._observe: Observe = lambda *_: None

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
            if parsed.get_backend_name() == "sqlite":
                if in_memory:
                    raise StoreError(f"database {shown} would forget everything; name a file")
                _check_place(str(parsed.database), shown)
            engine = create_engine(parsed, **_options(parsed))
        except (ArgumentError, NoSuchModuleError) as error:
            raise StoreError(f"database URL is not usable: {first_line(error)}") from None
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
        except (DatabaseError, sqlite3.Error, UnavailableError) as error:
            database.close()
            raise StoreError(f"database {shown} cannot be used: {first_line(error)}") from None
        except StoreError:
            database.close()
            raise
        return database

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; raises UnavailableError."""
        with own_errors(), Session(self._readers, self._plans) as session:
            yield session

    @contextmanager
    def write(self, patience_s: float = PATIENCE_S) -> Iterator[Session]:
        """A transaction: committed at the end, undone by any exception.

        For what can be done again or not at all: what must not be lost goes through `writing` or
        `written`, which try again. Raises ConflictError, and UnavailableError where it cannot
        begin within `patience_s` or is lost on the way.
        """
        deadline = time.monotonic() + patience_s
        with (
            own_errors(),
            self._turn,
            Session(self._writers, self._plans) as session,
        ):
            while True:
                try:
                    session.connection()
                    break
                except OperationalError:
                    session.rollback()
                    if time.monotonic() >= deadline or self._closed.wait(RETRY_EVERY_S):
                        raise
            yield session
            began = time.perf_counter()
            session.commit()
            self._observe("commit", time.perf_counter() - began)

    def submit(
        self,
        work: Callable[[Session, list[Item]], Sequence[Result | Exception]],
        item: Item,
    ) -> "Future[Result]":
        """Have the writer do work on an item, in one call with others of the same that wait.

        See `WriteQueue`.
        """
        return self._queue.put(work, item)

    async def writing(self, work: Callable[[Session], Result]) -> Result:
        """What work gives once it is on disk; for requests, which hold no thread meanwhile.

        Raises ConflictError, UnavailableError, and whatever the work raised. It may be done again
        where its transaction failed.
        """
        return await asyncio.wrap_future(self.submit(_one_by_one, work))

    def written(self, work: Callable[[Session], Result]) -> Result:
        """What `writing` gives, for threads that may wait for it."""
        return self.submit(_one_by_one, work).result()

    def watch(self, observe: Observe) -> None:
        """Tell `observe` what every statement takes ("read" or "write", by its transaction), and
        every commit ("commit"), in seconds."""
        self._observe = observe

        @event.listens_for(self._readers, "before_cursor_execute")
        def began(connection: Connection, *_: object) -> None:
            connection.info[BEGAN] = time.perf_counter()

        @event.listens_for(self._readers, "after_cursor_execute")
        def ended(connection: Connection, *_: object) -> None:
            writing = connection.get_execution_options().get("hplb_write")
            seconds = time.perf_counter() - connection.info.pop(BEGAN)
            observe("write" if writing else "read", seconds)

    def election(self) -> Election:
        """Of one of the planners on this database."""
        return election(self._readers)

    def answers(self) -> bool:
        """Whether the schema can be read."""
        try:
            with self.read() as session:
                session.execute(text("SELECT version_num FROM alembic_version"))
        except (SQLAlchemyError, UnavailableError):
            return False
        return True

    def close(self) -> None:
        """Write what waits, if that can be done at once, and close every connection."""
        self._closed.set()
        self._queue.close()
        self._readers.dispose()

    def _bring_up_to_date(self, shown: str) -> None:
        from alembic.util import CommandError  # slow to import, as all of Alembic is

        with self.write(START_PATIENCE_S) as session:
            connection = session.connection()
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            if connection.dialect.name == "sqlite":
                verdict = str(connection.execute(text("PRAGMA quick_check(1)")).scalar())
                if verdict != "ok":
                    detail = " ".join(verdict.split())
                    raise StoreError(f"database {shown} is damaged: {detail}")
            try:
                upgrade(connection)
            except CommandError as error:
                raise StoreError(
                    f"database {shown} was not made by this version of hplb: {first_line(error)}"
                ) from None


def without_password(url: str) -> str:
    """A database URL without its password; raises StoreError for what is none."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise StoreError(f"database URL is not usable: {first_line(error)}") from None


def _one_by_one(
    session: Session, works: list[Callable[[Session], Result]]
) -> list[Result | Exception]:
    """Each in a savepoint of its own; where one fails, the queue tries each by itself."""
    return [work(session) for work in works]


def _check_place(path: str, shown: str) -> None:
    """Raise StoreError at once where no waiting makes a file: SQLite tries again as if locked."""
    place = Path(path).absolute()
    if path.startswith("file:") or (place.parent.is_dir() and not place.is_dir()):
        return
    why = f"{place} is a folder" if place.is_dir() else f"there is no folder {place.parent}"
    raise StoreError(f"database {shown} cannot be used: unable to open it, {why}")


def _options(url: URL) -> dict[str, Any]:
    """Of the pool of connections, and of a server that may be away."""
    if url.get_backend_name() == "sqlite":
        return {"pool_size": READERS, "max_overflow": -1}
    away = {name: value for name, value in UNREACHED.items() if name not in url.query}
    return {
        "pool_size": READERS,
        "max_overflow": 0,
        "pool_timeout": READ_PATIENCE_S,
        "pool_pre_ping": True,
        "connect_args": away,
    }


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the packaged migrations up to a revision, the newest unless said."""
    from alembic import command
    from alembic.config import Config

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
