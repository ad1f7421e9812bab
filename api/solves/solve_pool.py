"""Threads for solves: so many at a time, so many waiting, the rest turned away."""

from collections.abc import Callable, Iterable
from threading import Lock, Thread

from prometheus_client.core import GaugeMetricFamily

Work = Callable[[], None]


class SolvePool:
    """At most `workers` jobs run, at most `queue` more wait; a job must not raise."""

    def __init__(self, workers: int, queue: int) -> None:
        self._workers = workers
        self._queue = queue
        self._lock = Lock()
        self._running = 0
        self._waiting: dict[object, Work] = {}

    @property
    def jobs(self) -> int:
        """How many run or wait."""
        return self._running + len(self._waiting)

    def gauges(self) -> Iterable[GaugeMetricFamily]:
        """How many run and how many wait, for a scrape."""
        yield GaugeMetricFamily("hplb_plan_solves_running", "Solves under way.", self._running)
        yield GaugeMetricFamily(
            "hplb_plan_solves_queued", "Solves that wait for their turn.", len(self._waiting)
        )

    def submit(self, key: object, work: Work) -> bool:
        """Run a job now, or when a thread is free; False where there is no room."""
        with self._lock:
            if self._running < self._workers:
                self._running += 1
            elif len(self._waiting) < self._queue:
                self._waiting[key] = work
                return True
            else:
                return False
        # A daemon: a solver that is slow to notice its cancellation must not hold up the exit.
        Thread(target=self._work, args=(work,), name="solve", daemon=True).start()
        return True

    def withdraw(self, key: object) -> bool:
        """Take back a job that still waits; False where it runs or has run."""
        with self._lock:
            return self._waiting.pop(key, None) is not None

    def _work(self, work: Work | None) -> None:
        while work is not None:
            work()
            work = self._next()

    def _next(self) -> Work | None:
        with self._lock:
            if not self._waiting:
                self._running -= 1
                return None
            return self._waiting.pop(next(iter(self._waiting)))
