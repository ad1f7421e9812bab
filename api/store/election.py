"""One of several planners on a database: a lock that is let go when its holder dies, however."""

import fcntl
import os
from typing import Protocol

from sqlalchemy import Connection, Engine, func, select, text

ELECTION_LOCK = 0x48504C42_0002
"""Of PostgreSQL's advisory locks."""
KEEPALIVES = {"idle": 10, "interval": 5, "count": 3}
"""Seconds, and how often: a holder whose machine has vanished is missed within half a minute."""


class Election(Protocol):
    """Not for several threads at once."""

    def holds(self) -> bool:
        """Take the lock where it is free; whether it is held now. Raises what drivers raise."""

    def give_up(self) -> None:
        """Let it go."""


class FileElection:
    """Of a SQLite database, whose planners are on one machine: by a file beside it."""

    def __init__(self, database: str) -> None:
        self._path = f"{database}-planner"
        self._handle: int | None = None

    def holds(self) -> bool:
        if self._handle is not None:
            return True
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def give_up(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class ServerElection:
    """Of a PostgreSQL database: by a lock of the session, which ends with its connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connection: Connection | None = None

    def holds(self) -> bool:
        if self._connection is not None:
            try:
                self._connection.execute(select(1))
                return True
            except Exception:
                # The server has let go of it with the session.
                self.give_up()
        connection = self._engine.connect()
        for name, value in KEEPALIVES.items():
            connection.execute(text(f"SET tcp_keepalives_{name} = {value}"))
        if connection.execute(select(func.pg_try_advisory_lock(ELECTION_LOCK))).scalar():
            self._connection = connection
            return True
        connection.close()
        return False

    def give_up(self) -> None:
        if self._connection is not None:
            # Not back to the pool: a session that goes on would keep the lock.
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


def election(engine: Engine) -> Election:
    """Of the planners on an engine's database."""
    if engine.dialect.name == "sqlite":
        return FileElection(str(engine.url.database))
    return ServerElection(engine)
