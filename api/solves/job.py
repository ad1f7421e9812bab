"""One solve under way, as everybody who asked for it, follows it or ends it sees it. No I/O."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock
from typing import Literal

from api.client.bodies import Incumbent, SolveEnd, SolveStatus, SolveUnderWay
from api.notify import Notifier, wait_for
from api.problems import Problem
from api.solves.prefer import USUAL
from solver.solution import Progress

MOST_REVISIONS = 256
"""Beyond it every second one is dropped, never the newest: later ones supersede earlier ones."""


@dataclass(frozen=True)
class Ended:
    """A plan was made and kept; `cut_short` by a cancellation, so that it answers nothing."""

    plan: SolveEnd
    cut_short: bool


Outcome = Ended | Problem
Fate = Literal["whole", "cut_short", "abandoned"]


class SolveJob:
    """Named by its request's digest. Thread-safe; nothing in it waits for a reader.

    `client` asked first, at `asked_at`, with an urgency among its own (RFC 9218: 0 to 7, least
    first). `promised`: the store knows of it, and a restart asks again. It is abandoned once all
    who asked have left, unless one asked to be answered later. `on_cancel` is called whenever it
    is cancelled, after `cancelled` is set.
    """

    def __init__(
        self, digest: str, client: str = "", urgency: int = USUAL, asked_at: float = 0.0
    ) -> None:
        self.id = digest
        self.client = client
        self.urgency = urgency
        self.asked_at = asked_at
        self.promised = False
        self.cancelled = Event()
        self.on_cancel: Callable[[], None] = lambda: None
        self.changes = Notifier()
        self._lock = Lock()
        self._fate: Fate = "whole"
        self._sealed = False
        self._askers = 0
        self._detached = False
        self._started: float | None = None
        self._revisions: list[Incumbent] = []
        self._outcome: Outcome | None = None
        self._told: list[Callable[[], None]] = []

    def join(self, *, detached: bool) -> bool:
        """Ask for this solve's answer too; False where it will not have one."""
        with self._lock:
            if self.cancelled.is_set() or isinstance(self._outcome, Problem):
                return False
            self._askers += 1
            self._detached |= detached
            return True

    def leave(self) -> bool:
        """One who asked is gone; returns whether that leaves nobody."""
        with self._lock:
            self._askers -= 1
            return self._askers == 0 and not self._detached and self._outcome is None

    def begin(self) -> None:
        """The search starts."""
        with self._lock:
            if self._started is None:
                self._started = time.monotonic()

    def cancel(self, fate: Fate) -> None:
        """End the search: `cut_short` keeps the best plan so far, `abandoned` keeps nothing."""
        with self._lock:
            if self._sealed or self._fate == "abandoned":
                return
            self._fate = fate
            self.cancelled.set()
        self.on_cancel()

    @property
    def fate(self) -> Fate:
        """What is to become of it, as things stand."""
        return self._fate

    def seal(self) -> Fate:
        """The search has ended: what is to become of it. Cancelling comes too late from now on."""
        with self._lock:
            self._sealed = True
            return self._fate

    def report_progress(self, progress: Progress) -> None:
        """Note a better incumbent or bound; called by the solver, from any of its threads."""
        with self._lock:
            last = self._revisions[-1] if self._revisions else None
            makespan_s, bound_s = progress.makespan_s, progress.lower_bound_s
            if last is not None:
                makespan_s = min(makespan_s, last.makespan_s)
                bound_s = max(bound_s, last.lower_bound_s)
                if (makespan_s, bound_s) == (last.makespan_s, last.lower_bound_s):
                    return
            self._revisions.append(
                Incumbent(
                    revision=last.revision + 1 if last else 1,
                    makespan_s=makespan_s,
                    lower_bound_s=bound_s,
                    gap=max(0.0, 1 - bound_s / makespan_s),
                    settled=progress.settled,
                    layers=progress.layers,
                    elapsed_s=self._elapsed_s(),
                )
            )
            if len(self._revisions) > MOST_REVISIONS:
                del self._revisions[-2::-2]
        self.changes.notify()

    def end(self, outcome: Outcome) -> None:
        """Tell everybody what came of it."""
        with self._lock:
            self._outcome = outcome
            told, self._told = self._told, []
        self.changes.notify()
        for tell in told:
            tell()

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Call `tell` once there is an outcome, from whichever thread has it."""
        with self._lock:
            if self._outcome is None:
                self._told.append(tell)
                return
        tell()

    @property
    def outcome(self) -> Outcome | None:
        """What came of it, or None while it is under way."""
        return self._outcome

    def since(self, revision: int) -> tuple[list[Incumbent], Outcome | None]:
        """The retained revisions after one, and the outcome if there is one."""
        with self._lock:
            return [r for r in self._revisions if r.revision > revision], self._outcome

    def status(self) -> SolveStatus:
        """How far it is."""
        with self._lock:
            known = self._revisions[-1].model_dump() if self._revisions else {}
            state = "queued" if self._started is None else "solving"
            now = {"id": self.id, "status": state, "elapsed_s": self._elapsed_s()}
        return SolveStatus.model_validate({**known, **now})

    def under_way(self) -> SolveUnderWay:
        """How far it is, and whose."""
        return SolveUnderWay(
            **self.status().model_dump(),
            client=self.client,
            urgency=self.urgency,
            asked_at=self.asked_at,
        )

    async def ended_within(self, seconds: float) -> bool:
        """Wait for the outcome; False where it did not come in time, or the service stops."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while True:
            change = self.changes.next_change()
            if self._outcome is not None:
                return True
            left_s = deadline - clock()
            if left_s <= 0 or self.changes.closed:
                return False
            await wait_for(change, left_s)

    def _elapsed_s(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started


def abandoned() -> Problem:
    """What whoever still listens to an abandoned solve is told."""
    return Problem(503, "the solve was cancelled", headers={"Retry-After": "1"})
