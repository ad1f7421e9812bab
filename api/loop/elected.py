"""What one planner does for all that share a database: refine, and delete what is kept no longer.

The others take in batches too: the elected one looks for them in the database, once a second.
"""

import time
from collections.abc import Callable, Iterable
from threading import Event, Lock, Thread

import structlog
from prometheus_client.core import GaugeMetricFamily

from api.deployments.ingest import Intake
from api.loop.refiner import Refiner
from api.metrics import Metrics
from api.store import retention, sample_store
from api.store.database import Database
from api.store.retention import RetentionPolicy

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
PRUNE_EVERY_S = 30.0


class Elected:
    """`start` and `stop` belong to the application's life; `taken_in` may come from any thread."""

    def __init__(
        self,
        database: Database,
        refiner: Refiner,
        metrics: Metrics,
        policy: RetentionPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._refiner = refiner
        self._policy = policy
        self._clock = clock
        self._election = database.election()
        self._holds = False
        self._lock = Lock()
        self._own: set[int] = set()
        self._last = 0
        self._pruned_at = time.monotonic()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="elected", daemon=True)
        metrics.scrape(self._gauges)

    def start(self) -> None:
        """Stand for election, now and as long as another planner is the one."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Let another planner be elected."""
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        """Wait, once stopped, for the look at hand."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def taken_in(self, deployment: str, intake: Intake) -> None:
        """This process stored a batch; the elected one hears of it, here or by looking."""
        if self._holds:
            with self._lock:
                self._own.add(intake.number)
            self._refiner.take_up(deployment, intake.kinds)

    def _gauges(self) -> Iterable[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "hplb_planner_elected", "1 where this planner refines and prunes.", float(self._holds)
        )

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            self._look()
        self._holds = False
        self._election.give_up()

    def _look(self) -> None:
        try:
            held, self._holds = self._holds, self._election.holds()
            if self._holds and not held:
                self._take_over()
            elif self._holds:
                self._take_up_others()
                if time.monotonic() - self._pruned_at >= PRUNE_EVERY_S:
                    self._prune()
            elif held:
                log.warning("election_lost")
        except Exception as error:
            # The database is away, or the disk full: the next look may find it back.
            log.warning("election_failed", error=str(error).partition("\n")[0])

    def _take_over(self) -> None:
        """Every deployment is taken up where the planner before this one left it."""
        log.info("elected")
        with self._database.read() as session:
            self._last = sample_store.newest_of_all(session)
        self._refiner.start()

    def _take_up_others(self) -> None:
        with self._database.read() as session:
            found = sample_store.since(session, self._last)
        if not found:
            return
        with self._lock:
            own, self._own = self._own, set()
        self._last = max(batch for batch, _, _ in found)
        for batch, deployment, kind in found:
            if batch not in own:
                self._refiner.take_up(deployment, frozenset([kind]))

    def _prune(self) -> None:
        self._pruned_at = time.monotonic()
        deleted = retention.prune(self._database, self._policy, self._clock())
        if deleted:
            log.info("pruned", **deleted)
