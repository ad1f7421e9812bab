"""Whether what is written now will be there after a restart: what `/readyz` says."""

import os
from dataclasses import dataclass

from sqlalchemy.engine import make_url

from api.store.database import Database

LEAST_FREE_BYTES = 16 * 2**20
"""Of the disk that holds a database file: what the journal of the next transactions may take."""


@dataclass(frozen=True)
class _File:
    """The file of a SQLite database, and which one it was when it was opened."""

    path: str
    device: int
    number: int


class Readiness:
    """SQLite goes on reading and writing a file that was deleted, and says nothing."""

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._file = _file_of(url)

    def fault(self) -> str | None:
        """Why not to send requests here, or None."""
        if not self._database.answers():
            return "the database does not answer"
        return None if self._file is None else _fault_of(self._file)


def _file_of(url: str) -> _File | None:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    path = os.path.abspath(parsed.database)
    found = os.stat(path)
    return _File(path, found.st_dev, found.st_ino)


def _fault_of(opened: _File) -> str | None:
    try:
        now = os.stat(opened.path)
        room = os.statvfs(os.path.dirname(opened.path))
    except OSError as error:
        return f"the database's file: {error.strerror}; what is written now is lost with a restart"
    if (now.st_dev, now.st_ino) != (opened.device, opened.number):
        return "the database's file is another one now; what is written is lost with a restart"
    free = room.f_bavail * room.f_frsize
    if free < LEAST_FREE_BYTES:
        return f"the disk is full: {free // 2**20} MiB left where the database is"
    return None
