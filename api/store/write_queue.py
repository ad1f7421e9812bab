"""The one writer: what waits together is written in one transaction, and tried again if need be.

A thread writes for everybody, so that no request's thread waits for a lock, a sync to disk is
shared by all that came meanwhile, and what the database did not take is not lost with it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import groupby
from threading import Condition, Event, Lock, Thread
from typing import Any

from sqlalchemy.exc import IntegrityError

from api.store.session import ConflictError, Session, UnavailableError, is_out_of_reach

MOST_WAITING = 4096
MOST_TOGETHER = 256
RETRY_EVERY_S = 0.2
PATIENCE_S = 30.0
"""As long as a lock, a disk or a server that is started again may take; then 503."""

Work = Callable[[Session, list[Any]], Sequence[Any]]
Transaction = Callable[[], AbstractContextManager[Session]]


@dataclass(frozen=True, eq=False)
class _Job:
    """An item of work; jobs of the same work that wait together are done in one call."""

    work: Work
    item: Any
    deadline: float
    outcome: "Future[Any]" = field(default_factory=Future)


class WriteQueue:
    """Work is a function of a session and of items, and gives a result for each, or an exception.

    It may be called again with the same items when its transaction failed, so that it must have no
    effect but in the session.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._waiting: deque[_Job] = deque()
        self._changed = Condition()
        self._closed = Event()
        self._thread: Thread | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, work: Work, item: Any, patience_s: float = PATIENCE_S) -> "Future[Any]":
        """Have an item written; the future has its result once that is on disk.

        Or ConflictError, UnavailableError (where `patience_s` is over, or too many wait already),
        and whatever the work raised.
        """
        job = _Job(work, item, time.monotonic() + patience_s)
        with self._changed:
            if self._closed.is_set() or len(self._waiting) >= MOST_WAITING:
                job.outcome.set_exception(UnavailableError("too much waits to be written"))
                return job.outcome
            self._waiting.append(job)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="writer", daemon=True)
                self._thread.start()
            self._changed.notify()
        return job.outcome

    def close(self) -> None:
        """Write what waits if that can be done at once, and end."""
        with self._changed:
            self._closed.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while jobs := self._next():
            self._write(jobs)

    def _next(self) -> list[_Job]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed.is_set())
            taken = [self._waiting.popleft() for _ in range(min(MOST_TOGETHER, len(self._waiting)))]
        return taken

    def _write(self, jobs: list[_Job]) -> None:
        jobs = [job for job in jobs if job.outcome.set_running_or_notify_cancel()]
        while jobs:
            # Nobody who waits for one knows of the others: they may change places.
            jobs.sort(key=lambda job: id(job.work))
            alikes = [list(alike) for _, alike in groupby(jobs, key=lambda job: job.work)]
            try:
                with self._transaction() as session:
                    outcomes = [
                        outcome for alike in alikes for outcome in _together(session, alike)
                    ]
            except UnavailableError as error:
                jobs = list(self._patient(jobs, error))
                self._closed.wait(RETRY_EVERY_S)
                continue
            except Exception as error:  # of the commit: nobody's in particular
                outcomes = [error] * len(jobs)
            for job, outcome in zip(jobs, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    job.outcome.set_exception(outcome)
                else:
                    job.outcome.set_result(outcome)
            return

    def _patient(self, jobs: list[_Job], error: UnavailableError) -> Iterable[_Job]:
        """Those that wait on; the others are told."""
        now = time.monotonic()
        for job in jobs:
            if self._closed.is_set() or job.deadline <= now:
                job.outcome.set_exception(error)
            else:
                yield job


def _together(session: Session, jobs: list[_Job]) -> Sequence[Any]:
    """The outcomes of jobs of one work; where it fails for all, each is tried by itself."""
    try:
        return _nested(session, jobs)
    except Exception as error:
        if is_out_of_reach(error):
            raise
        return [_alone(session, job) for job in jobs]


def _alone(session: Session, job: _Job) -> Any:
    """A job's outcome; once more where another process stored the same row first."""
    for again in (True, False):
        try:
            return _nested(session, [job])[0]
        except IntegrityError as error:
            if not again:
                return ConflictError(str(error.orig))
        except Exception as error:
            if is_out_of_reach(error):
                raise
            return error
    raise AssertionError


def _nested(session: Session, jobs: list[_Job]) -> Sequence[Any]:
    """In a savepoint: what fails undoes nothing of the others."""
    with session.begin_nested():
        return jobs[0].work(session, [job.item for job in jobs])


class Turn:
    """A lock that those who wait get in the order in which they came."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held = False
        self._waiting: deque[Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._held:
                self._held = True
                return
            mine = Event()
            self._waiting.append(mine)
        mine.wait()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._held = False
