"""The spool: measured rounds on disk until the planner has them, oldest first.

Every batch passes through here, planner or not: a crash between measuring and delivering then
costs nothing, and sending one twice is harmless because its id goes with it.
"""

from pathlib import Path
from threading import Lock

import structlog
from pydantic import BaseModel, ConfigDict

from api.client.bodies import Key, MeasurementBatch
from executor.errors import StateError
from executor.reports.state import read_or_set_aside
from profiles.files import write_atomically

log = structlog.get_logger()
LIMIT = 1000


class Spooled(BaseModel):
    """A batch and which round of its generation it is, counted from 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    batch: MeasurementBatch


class Spool:
    """At most `limit` batches, one file each, named by a rising number; safe across threads.

    `dropped` counts those that were one too many.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob("*.tmp"):
                leftover.unlink(missing_ok=True)
            self._files = sorted(folder.glob("*.json"))
        except OSError as error:
            raise StateError(f"{folder}: no usable spool: {error.strerror}") from None
        self._folder, self._limit, self._lock = folder, limit, Lock()
        self.dropped = 0
        self._next = 1 + max((_number(file) for file in self._files), default=0)

    def __len__(self) -> int:
        return len(self._files)

    def add(self, batch: MeasurementBatch, round_number: int) -> None:
        """Put a batch last; the oldest is dropped when there are too many."""
        path = self._folder / f"{self._next:012d}.json"
        write_atomically(path, Spooled(round=round_number, batch=batch).model_dump_json())
        with self._lock:
            self._next += 1
            self._files.append(path)
            too_old = self._files[: -self._limit]
        for file in too_old:
            log.warning("spool full, oldest batch dropped", file=file.name, limit=self._limit)
            self.remove(file)
            self.dropped += 1

    def oldest(self) -> tuple[Path, Spooled] | None:
        """The first batch to send; files that are corrupt or gone are passed over."""
        for file in list(self._files):
            spooled = read_or_set_aside(file, Spooled)
            if spooled is not None:
                return file, spooled
            self._forget(file)
        return None

    def remove(self, file: Path) -> None:
        """Take a batch out: it was delivered, or nobody wants it."""
        file.unlink(missing_ok=True)
        self._forget(file)

    def rounds(self, key: Key) -> int:
        """The last round of a generation that waits here; 0 when none does."""
        waiting = [read_or_set_aside(file, Spooled) for file in list(self._files)]
        return max((e.round for e in waiting if e is not None and e.batch.key == key), default=0)

    def _forget(self, file: Path) -> None:
        with self._lock:
            if file in self._files:
                self._files.remove(file)


def _number(file: Path) -> int:
    return int(file.stem) if file.stem.isdigit() else 0
