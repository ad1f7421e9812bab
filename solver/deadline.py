"""When a search must stop, and how much it may do until then."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any


class OutOfTimeError(Exception):
    """The deadline came in the middle of work that is nothing by half."""


@dataclass(frozen=True)
class Deadline:
    """When to stop: a moment of the monotonic clock, or an event set by whoever waits."""

    at: float
    cancelled: Event

    @property
    def left_s(self) -> float:
        return 0.0 if self.cancelled.is_set() else max(self.at - time.monotonic(), 0.0)

    def check(self) -> None:
        """Raises OutOfTimeError once it has come."""
        if self.left_s <= 0:
            raise OutOfTimeError

    def within(self, seconds: float) -> "Deadline":
        """The same deadline, or an earlier one `seconds` from now."""
        return Deadline(min(self.at, time.monotonic() + seconds), self.cancelled)


@dataclass(frozen=True)
class Effort:
    """How a search may work: so many threads, or with a seed one thread and `units` of work.

    CP-SAT's deterministic time counts work in units of about a second, so that a seeded search
    ends alike every time, unless the clock ends it first.
    """

    workers: int = 1
    seed: int | None = None
    units: float = 1.0

    def half(self, deadline: Deadline) -> Deadline:
        """Half of the time left; all of it with a seed, where work is counted and not time."""
        return deadline if self.seed is not None else deadline.within(deadline.left_s / 2)

    def limit(self, parameters: Any, seconds: float) -> None:
        """Set a CP-SAT solver's time, threads and seed."""
        parameters.max_time_in_seconds = max(seconds, 0.01)
        parameters.num_workers = self.workers
        if self.seed is not None:
            parameters.num_workers = 1
            parameters.random_seed = self.seed
            parameters.max_deterministic_time = self.units


@contextmanager
def stopping(
    cancelled: Event, stop: Callable[[], None], latest: float = math.inf
) -> Iterator[None]:
    """Call `stop` within 5 ms of `cancelled`, again and again until the search has ended.

    Also past `latest`, of the monotonic clock, for a search that overlooks its own limit.

    Both searches leave the GIL to the watcher: one computes in C++, the other in a process.
    """
    done = Event()

    def watch() -> None:
        while not done.wait(0.005):
            if cancelled.is_set() or time.monotonic() > latest:
                stop()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
