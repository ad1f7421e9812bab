"""The service's end of a worker process: asks it, listens to it, ends it, starts it again."""

import multiprocessing
import os
import shutil
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Lock
from typing import Any, Protocol
from uuid import uuid4

import structlog

from api.problems import Problem
from api.solves import worker
from api.solves.job import SolveJob, abandoned
from api.solves.resolve import ResolvedRequest
from api.solves.worker import Cancel, Failure, MadePlan, Ready, Task
from profiles.errors import HplbError
from profiles.model import ModelProfile
from solver.exact.plain_folder import plain_folder
from solver.solution import Progress

log = structlog.get_logger()

GRACE_S = 0.05
"""That a search nobody wants any more has to end by itself: starting a process anew costs more."""
HAND_OVER_S = 2.0
"""That a cancelled search whose plan is wanted has for it; without one it is lost."""
OVERRUN_S = 30.0
"""Beyond its time limit a search has hung."""


class Solver(Protocol):
    """What makes plans for a thread of the pool."""

    def start(self) -> None:
        """Be ready for the next; at any time, and without waiting for it."""

    def make_plan(self, resolved: ResolvedRequest, solve: SolveJob) -> MadePlan:
        """The plan, or the best so far once the solve is cancelled; called by one thread.

        Raises HplbError for what cannot be planned, Problem where nothing came of it.
        """

    def stop(self) -> None:
        """End it for good, from any thread."""

    def close(self) -> None:
        """Clear up once it has been stopped; by the thread that used it."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    folder: str
    nudging: socket.socket
    nudged: socket.socket
    ready: bool = False
    profile: str = ""

    def nudge(self) -> None:
        """Have `next` come back: a solve is cancelled, which nobody has to look for then."""
        with suppress(OSError):  # it has ended, or enough nudges wait
            self.nudging.send(b"!")

    def next(self, seconds: float | None) -> Any:
        """What it tells next; None where it is nudged first, or says nothing so long."""
        ready = wait([self.pipe, self.nudged], seconds)
        if self.nudged in ready:
            self.nudged.recv(4096)
        return self.pipe.recv() if self.pipe in ready else None

    def task_of(self, resolved: ResolvedRequest) -> Task:
        """A request as it is sent, after which the process has its profile."""
        request, profile = resolved.whole, resolved.whole.profile
        assert isinstance(profile, ModelProfile)
        known, self.profile = self.profile == profile.digest, profile.digest
        named = request.model_copy(update={"profile": profile.digest})
        return Task(named, None if known else profile, resolved.rates)

    def kill(self) -> None:
        """End it and CBC with it, which may have outlived it."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            # Before it leads a group of its own; of one that has ended the id may be another's.
            if not self.ended:
                os.kill(self.process.pid, signal.SIGKILL)
            os.killpg(self.process.pid, signal.SIGKILL)

    @property
    def ended(self) -> bool:
        """Whether it has, without taking its exit status: until then no other has its id."""
        return bool(wait([self.process.sentinel], 0))

    def bury(self) -> str:
        """Clear up after one that has ended, or is to; how it ended, in words."""
        self.kill()
        self.process.join()
        for end in (self.pipe, self.nudging, self.nudged):
            end.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        code = self.process.exitcode or 0
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


class SolverProcess:
    """A worker process, started anew whenever it has died."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._lock = Lock()
        self._worker: _Worker | None = None
        self._stopped = False

    def start(self) -> None:
        try:
            with suppress(Problem):  # stopped: there is nothing to be ready for
                self._running()
        except (HplbError, OSError) as error:
            # The next solve tries again, and says so.
            log.error("solver_not_started", error=str(error))

    def make_plan(self, resolved: ResolvedRequest, solve: SolveJob) -> MadePlan:
        running = self._running()
        solve.on_cancel = running.nudge
        try:
            self._await_start(running, solve)
            running.pipe.send(running.task_of(resolved))
            return self._listen(running, solve, resolved.whole.time_limit_s)
        except (EOFError, OSError):
            how = self._end()
            if solve.fate == "abandoned":
                raise abandoned() from None
            log.error("solver_died", how=how)
            detail = f"the process that made the plan ended {how}, which may be for want of memory"
            raise Problem(503, detail, headers={"Retry-After": "1"}) from None

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = self._worker
        if running is not None:
            running.kill()

    def close(self) -> None:
        self._end()

    def _running(self) -> _Worker:
        with self._lock:
            if self._worker is not None and self._worker.ended:
                log.warning("solver_ended", how=self._worker.bury())
                self._worker = None
            if self._stopped:
                raise abandoned()
            if self._worker is None:
                self._worker = self._begun()
            return self._worker

    def _begun(self) -> _Worker:
        # Spawned: a fork would have copies of the service's locks, held or not.
        context = multiprocessing.get_context("spawn")
        # Made by the process: one that the service did not live to see begin leaves none behind.
        folder = f"{plain_folder()}/hplb-solver-{uuid4().hex}"
        ours, theirs = context.Pipe()
        process = context.Process(
            target=worker.serve,
            args=(theirs, folder, self._memory_bytes),
            name="solver",
            daemon=True,
        )
        process.start()
        theirs.close()
        nudging, nudged = socket.socketpair()
        nudging.setblocking(False)
        return _Worker(process, ours, folder, nudging, nudged)

    def _end(self) -> str:
        with self._lock:
            running, self._worker = self._worker, None
        return "early" if running is None else running.bury()

    def _await_start(self, running: _Worker, solve: SolveJob) -> None:
        """It takes seconds, on a busy machine many: not of the solve's time."""
        while not running.ready:
            if solve.cancelled.is_set():
                raise self._late(solve)
            running.ready = isinstance(running.next(None), Ready)

    def _listen(self, running: _Worker, solve: SolveJob, time_limit_s: float) -> MadePlan:
        """What it tells, until it has a plan or none; ended where it does not come to an end."""
        latest = time.monotonic() + time_limit_s + OVERRUN_S
        cancelled_at = None
        while True:
            if solve.cancelled.is_set():
                if cancelled_at is None:
                    cancelled_at = time.monotonic()
                    running.pipe.send(Cancel())
                wanted = solve.fate == "cut_short"
                latest = cancelled_at + (HAND_OVER_S if wanted else GRACE_S)
            left_s = latest - time.monotonic()
            if left_s <= 0:
                self._end()
                raise self._late(solve)
            match running.next(left_s):
                case Progress() as progress:
                    solve.report_progress(progress)
                case MadePlan() as made:
                    return made
                case Failure() as failure:
                    raise self._failed(failure)

    def _failed(self, failure: Failure) -> Exception:
        if failure.kind == "refused":
            return HplbError(failure.message)
        if failure.kind == "memory":
            self._end()  # as good as new, whatever holds on to what
            mib = self._memory_bytes >> 20
            return Problem(422, f"the plan takes more than the {mib} MiB of memory that one may")
        return RuntimeError(failure.message)

    def _late(self, solve: SolveJob) -> Problem:
        if solve.fate == "abandoned":
            return abandoned()
        if solve.fate == "cut_short":
            return Problem(409, "the solve was cancelled and had no plan ready to be handed over")
        log.error("solver_hung")
        return Problem(
            503, f"the solve was ended {OVERRUN_S:g} s past its time limit, without plan"
        )
