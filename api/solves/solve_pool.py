"""Who gets the next free worker: fair among clients, with one worker for quick solves alone."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from threading import Condition, Thread

from prometheus_client.core import GaugeMetricFamily

from api.problems import Problem
from api.solves.job import SolveJob
from api.solves.prefer import BACKGROUND
from api.solves.solver_process import Solver

RETRY_AFTER = {"Retry-After": "2"}
MOST_REMEMBERED = 1024
"""Clients whose last turn is remembered."""


@dataclass(frozen=True, eq=False)
class Turn:
    """A solve and what is to be done when its turn comes, which must not raise."""

    solve: SolveJob
    work: Callable[[Solver], None]
    quick: bool = False

    @property
    def client(self) -> str:
        return self.solve.client

    @property
    def background(self) -> bool:
        """Whether it comes after everybody's."""
        return self.solve.urgency == BACKGROUND


class SolvePool:
    """`workers` solves at a time and one more that is quick; of each kind `queue` may wait.

    A client has at most `per_client` that run or wait. The next free worker goes to the client with
    the fewest running, of several to the one whose last turn is longest ago. In the background run
    at most `workers` - 1, or one; how many wait there is up to who asks.
    """

    def __init__(
        self, make_solver: Callable[[], Solver], workers: int, queue: int, per_client: int
    ) -> None:
        self._quick = make_solver()
        self._solvers = [self._quick, *(make_solver() for _ in range(workers))]
        self._most_behind = max(1, workers - 1)
        self._queue = queue
        self._per_client = per_client
        self._changed = Condition()
        self._waiting: list[Turn] = []
        self._running: list[Turn] = []
        self._turns = count(1)
        self._last_turn: OrderedDict[str, int] = OrderedDict()
        self._stopped = False
        # Daemons: an interpreter that ends by an error waits for no search.
        self._threads = [
            Thread(target=self._work, args=(solver,), name="solve", daemon=True)
            for solver in self._solvers
        ]

    def start(self) -> None:
        """Begin, with the workers started so that the first solves find them warm."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End every worker now, whatever it does; what waits is not begun any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for solver in self._solvers:
            solver.stop()

    def join(self, timeout_s: float) -> None:
        """Wait, once stopped, until nothing runs."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)

    def gauges(self) -> Iterable[GaugeMetricFamily]:
        """How many run and how many wait, for a scrape."""
        running, waiting = len(self._running), len(self._waiting)
        yield GaugeMetricFamily("hplb_plan_solves_running", "Solves under way.", running)
        yield GaugeMetricFamily(
            "hplb_plan_solves_queued", "Solves that wait for their turn.", waiting
        )

    def submit(self, turn: Turn) -> None:
        """Let a solve wait for its turn, which may come at once.

        Raises Problem: 429 where its client has too many, 503 where too many wait.
        """
        with self._changed:
            if self._stopped:
                raise Problem(503, "the service stops", headers=RETRY_AFTER)
            if not turn.background:
                self._check_room(turn)
            self._waiting.append(turn)
            self._changed.notify_all()

    def withdraw(self, solve: SolveJob) -> bool:
        """Take back a solve that still waits; False where it runs or has run."""
        with self._changed:
            for turn in self._waiting:
                if turn.solve is solve:
                    self._waiting.remove(turn)
                    return True
            return False

    def _check_room(self, turn: Turn) -> None:
        own = [t for t in (*self._running, *self._waiting) if t.client == turn.client]
        if len(own) >= self._per_client:
            raise Problem(
                429,
                f"{len(own)} plans are being made for you, and more are not at a time; try again "
                "when one is done",
                headers=RETRY_AFTER,
            )
        alike = [
            t
            for t in (*self._running, *self._waiting)
            if t.quick == turn.quick and not t.background
        ]
        workers = 1 if turn.quick else len(self._solvers) - 1
        if len(alike) >= workers + self._queue:
            raise Problem(
                503,
                f"{len(alike)} plans are being made; try again in a moment",
                headers=RETRY_AFTER,
            )

    def _work(self, solver: Solver) -> None:
        solver.start()
        while (turn := self._next(solver)) is not None:
            turn.work(solver)
            with self._changed:
                self._running.remove(turn)
                # What is in the background may have waited for just this one.
                self._changed.notify_all()
            solver.start()
        solver.close()

    def _next(self, solver: Solver) -> Turn | None:
        """The turn that comes next on this worker, waited for; None once all is over."""
        with self._changed:
            while not self._stopped:
                turn = min(self._eligible(solver), key=self._place, default=None)
                if turn is not None:
                    self._waiting.remove(turn)
                    self._running.append(turn)
                    self._note_turn(turn.client)
                    return turn
                self._changed.wait()
            return None

    def _eligible(self, solver: Solver) -> list[Turn]:
        if solver is self._quick:
            return [turn for turn in self._waiting if turn.quick and not turn.background]
        behind = sum(turn.background for turn in self._running) < self._most_behind
        return [turn for turn in self._waiting if behind or not turn.background]

    def _place(self, turn: Turn) -> tuple[bool, int, int, int]:
        """Where a turn stands; of equals the one that has waited longest is first."""
        running = Counter(own.client for own in self._running)
        last = self._last_turn.get(turn.client, 0)
        return turn.background, running[turn.client], last, turn.solve.urgency

    def _note_turn(self, client: str) -> None:
        self._last_turn[client] = next(self._turns)
        self._last_turn.move_to_end(client)
        if len(self._last_turn) > MOST_REMEMBERED:
            self._last_turn.popitem(last=False)
