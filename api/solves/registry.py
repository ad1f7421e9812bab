"""The solves that can be asked about: under way, and for some minutes those that have ended."""

from collections.abc import Callable
from threading import Lock

from api.solves.job import Ended, SolveJob

KEPT_S = 600.0
KEPT_MOST = 256


class SolveRegistry:
    """Solves by their request's digest, in memory: a restart forgets them, not their plans."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._by_digest: dict[str, SolveJob] = {}
        self._under_way: set[SolveJob] = set()
        self._ended: dict[SolveJob, float] = {}

    def add(self, solve: SolveJob) -> None:
        """A solve that begins, in place of an earlier one of an equal request."""
        with self._lock:
            self._by_digest[solve.id] = solve
            self._under_way.add(solve)
            self._forget_old()

    def note_end(self, solve: SolveJob) -> None:
        """A solve has its outcome."""
        with self._lock:
            self._under_way.discard(solve)
            self._ended[solve] = self._clock()
            self._forget_old()

    def find(self, digest: str) -> SolveJob | None:
        """The newest solve of a request, or None."""
        with self._lock:
            self._forget_old()
            return self._by_digest.get(digest)

    def forget(self, plan_id: str) -> None:
        """A plan is gone: what ended with it is no longer asked about."""
        with self._lock:
            for solve in list(self._ended):
                if isinstance(solve.outcome, Ended) and solve.outcome.plan.plan_id == plan_id:
                    self._drop(solve)

    def under_way(self) -> list[SolveJob]:
        """Every solve without an outcome."""
        with self._lock:
            return list(self._under_way)

    def _forget_old(self) -> None:
        oldest_first = list(self._ended.items())
        for place, (solve, at) in enumerate(oldest_first):
            if len(oldest_first) - place <= KEPT_MOST and self._clock() - at <= KEPT_S:
                break
            self._drop(solve)

    def _drop(self, solve: SolveJob) -> None:
        del self._ended[solve]
        if self._by_digest.get(solve.id) is solve:
            del self._by_digest[solve.id]
