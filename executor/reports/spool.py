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


class _Generation(BaseModel):
    deployment: str
    generation: int
    plan_id: str


class _Waiting(BaseModel):
    """What is remembered of a batch that waits: a fraction of a megabyte stays on disk."""

    round: int
    batch: _Generation


class Spool:
    """At most `limit` batches, one file each, named by a rising number; safe across threads.

    Which round of which generation each is, is read from the folder once and remembered: looking
    at all that waits, whenever a batch is added, would keep a node busy while its planner is away.
    `dropped` counts those that were one too many.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob("*.tmp"):
                leftover.unlink(missing_ok=True)
            files = sorted(folder.glob("*.json"))
        except OSError as error:
            raise StateError(f"{folder}: no usable spool: {error.strerror}") from None
        self._folder, self._limit, self._lock = folder, limit, Lock()
        self._waiting: dict[Path, tuple[Key, int]] = {}
        for file in files:
            found = read_or_set_aside(file, _Waiting)
            if found is not None:
                of = found.batch
                self._waiting[file] = (of.deployment, of.generation, of.plan_id), found.round
        self.dropped = 0
        self._next = 1 + max((_number(file) for file in files), default=0)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, batch: MeasurementBatch, round_number: int) -> None:
        """Put a batch last; the oldest is dropped when there are too many."""
        path = self._folder / f"{self._next:012d}.json"
        write_atomically(path, Spooled(round=round_number, batch=batch).model_dump_json())
        with self._lock:
            self._next += 1
            self._waiting[path] = batch.key, round_number
            too_old = list(self._waiting)[: -self._limit]
        for file in too_old:
            log.warning("spool full, oldest batch dropped", file=file.name, limit=self._limit)
            self.remove(file)
            self.dropped += 1

    def oldest(self) -> tuple[Path, Spooled] | None:
        """The first batch to send; files that are corrupt or gone are passed over."""
        with self._lock:
            files = list(self._waiting)
        for file in files:
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
        with self._lock:
            return max((number for of, number in self._waiting.values() if of == key), default=0)

    def _forget(self, file: Path) -> None:
        with self._lock:
            self._waiting.pop(file, None)


def _number(file: Path) -> int:
    return int(file.stem) if file.stem.isdigit() else 0
