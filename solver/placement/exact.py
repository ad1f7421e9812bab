"""What the exact searches share: answers, deadlines, and devices in an order without symmetry."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import numpy as np

from solver.problem import Assignment, Ints, LayerProblem


@dataclass(frozen=True, eq=False)
class Found:
    """What a search came back with: an assignment or none, and what it proved."""

    assignment: Assignment | None
    lower_bound_s: float
    proof: str


@dataclass(frozen=True)
class Deadline:
    """When to stop: a moment of the monotonic clock, or an event set by whoever waits."""

    at: float
    cancelled: Event

    @property
    def left_s(self) -> float:
        return 0.0 if self.cancelled.is_set() else max(self.at - time.monotonic(), 0.0)

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
    """Call `stop` within 20 ms of `cancelled`, again and again until the search has ended.

    Also past `latest`, of the monotonic clock, for a search that overlooks its own limit.

    Both searches leave the GIL to the watcher: one computes in C++, the other in a process.
    """
    done = Event()

    def watch() -> None:
        while not done.wait(0.02):
            if cancelled.is_set() or time.monotonic() > latest:
                stop()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def device_classes(layer: LayerProblem) -> list[Ints]:
    """Devices that can be exchanged without changing anything: same type, same count asked."""
    keys = list(zip(layer.type_of, layer.counts * layer.equal_counts, strict=True))
    order = sorted(set(keys))
    return [np.array([d for d, k in enumerate(keys) if k == key]) for key in order]


def longest_order(layer: LayerProblem) -> Ints:
    """Items by falling cost."""
    return np.argsort(-layer.blended_s.mean(axis=1), kind="stable")


def reachable(layer: LayerProblem) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Which (item, device) pairs a solution needs, `[items, devices]`, once symmetry is broken.

    Numbering a class's devices by the first (longest) item they get, the i-th longest item only
    ever reaches the devices 0 to i of the class.
    """
    allowed = np.ones((layer.items, layer.devices), dtype=bool)
    rank = np.empty(layer.items, dtype=np.int64)
    rank[longest_order(layer)] = np.arange(layer.items)
    for devices in device_classes(layer):
        allowed[:, devices] = np.arange(len(devices))[None, :] <= rank[:, None]
    return allowed


def canonical(layer: LayerProblem, assignment: Assignment) -> Assignment:
    """The same placement with exchangeable devices numbered as `reachable` wants them."""
    renamed = np.arange(layer.devices)
    order = longest_order(layer)
    for devices in device_classes(layer):
        seen = list(dict.fromkeys(d for d in assignment[order] if d in devices))
        unused = [d for d in devices if d not in seen]
        renamed[[*seen, *unused]] = devices
    return np.asarray(renamed[assignment], dtype=np.int64)
