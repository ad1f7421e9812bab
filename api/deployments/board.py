"""What every node is to run, read for all long polls at once."""

import asyncio
import time
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from api.notify import Notifier
from api.problems import not_found
from api.store import node_store
from api.store.database import Database

RECHECK_S = 2.0
"""Another process on the same database may change an assignment without this one's notice."""


@dataclass(frozen=True)
class _Reading:
    """What was stored at some time, after so many changes that this process knows of."""

    wanted: dict[str, tuple[str, int] | None]
    changes: int
    at: float


class AssignmentBoard:
    """For coroutines of one loop at a time; hundreds that wait cost a reading each `RECHECK_S`."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        self._newest: _Reading | None = None
        self._reading: asyncio.Task[_Reading] | None = None

    async def wanted(self, node_id: str) -> tuple[str, int] | None:
        """The deployment and generation that a node is to run, None where it serves none.

        As it was after the last change that this process knows of, or `RECHECK_S` ago where another
        process changed it. Raises Problem: 404 for an unknown node, UnavailableError.
        """
        reading = self._newest
        fresh = reading is not None and time.monotonic() - reading.at < RECHECK_S
        if reading is None or not fresh or reading.changes != self._notifier.changes:
            reading = await self._read()
        if node_id not in reading.wanted:
            # Perhaps another process took it in, just now.
            reading = await self._read()
        if node_id not in reading.wanted:
            raise not_found("node", node_id)
        return reading.wanted[node_id]

    async def _read(self) -> _Reading:
        """A reading that began no earlier than this call; those who call meanwhile share one."""
        while (under_way := self._reading) is not None:
            began_with = self._notifier.changes
            reading = await asyncio.shield(under_way)
            if reading.changes == began_with:
                return reading
        self._reading = asyncio.create_task(run_in_threadpool(self._look))
        try:
            self._newest = await asyncio.shield(self._reading)
        finally:
            self._reading = None
        return self._newest

    def _look(self) -> _Reading:
        changes, at = self._notifier.changes, time.monotonic()
        with self._database.read() as session:
            return _Reading(node_store.assigned(session), changes, at)
