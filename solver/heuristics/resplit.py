"""Iterated local search that divides two devices' items anew, charges included.

Descent: the busiest device shares evenly with another until no pair gains (the pairwise exchanges
of Dell'Amico & Martello 1995, exact for two devices). Then two other devices divide theirs at
random below the makespan, and descent goes on (Lourenco, Martin & Stutzle 2003).
"""

import numpy as np

from solver.deadline import Deadline
from solver.exact.interchangeable import Classes, classes_of
from solver.heuristics.two_devices import Pair, divide, divide_at_random
from solver.problem import Assignment, LayerProblem
from solver.shares import Floats, Ints

LEAST_GAIN = 1e-9
"""Of the busiest load: smaller gains are rounding."""
SHUFFLES = 300
"""Random divisions of other pairs in a search."""


def resplit_pairs(
    layer: LayerProblem,
    start: Assignment,
    enough_s: float,
    deadline: Deadline,
    *,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Assignment:
    """The best placement met from `start` on, never worse than it; one of `enough_s` will do.

    Every device keeps its number of items where counts are equal. Layers of several workloads
    come back as they were.
    """
    if layer.workloads > 1 or layer.devices == 1 or not layer.allows(start):
        return start
    state = _State(layer, start, np.random.default_rng(seed))
    best, best_s = start, layer.makespan(start)
    for _ in range(shuffles + 1):
        state.descend(enough_s, deadline)
        if state.makespan_s < best_s * (1 - LEAST_GAIN):
            found = state.assignment()
            best, best_s = min([(best, best_s), (found, layer.makespan(found))], key=lambda f: f[1])
        if best_s <= enough_s or deadline.left_s <= 0:
            break
        state.shuffle()
    return best


class _State:
    """Items of every class on every device, and the loads of that."""

    def __init__(self, layer: LayerProblem, start: Assignment, random: np.random.Generator) -> None:
        self.layer = layer
        self.classes: Classes = classes_of(layer)
        of, groups = self.classes.group_of, self.classes.charge_s.shape[1]
        self.groups = tuple(np.flatnonzero(of == group) for group in range(groups))
        self.member: Ints = np.asarray(np.arange(groups)[:, None] == of, dtype=np.int64)
        self.counts = self.classes.counted(start, layer.devices)
        self.loads_s: Floats = np.array([self._load(d) for d in range(layer.devices)])
        self.random = random

    @property
    def makespan_s(self) -> float:
        return float(self.loads_s.max())

    def assignment(self) -> Assignment:
        return self.classes.placed(self.counts)

    def descend(self, enough_s: float, deadline: Deadline) -> None:
        """Even out the busiest device with others, the least busy first, while it helps."""
        while self.makespan_s > enough_s:
            busiest = int(self.loads_s.argmax())
            others = (int(d) for d in np.argsort(self.loads_s, kind="stable") if d != busiest)
            if not any(deadline.left_s > 0 and self._evened(busiest, d) for d in others):
                return

    def shuffle(self) -> None:
        """Two devices but the busiest divide their items at random, below the makespan."""
        others = np.flatnonzero(np.arange(self.layer.devices) != self.loads_s.argmax())
        if len(others) < 2:
            return
        one, other = (int(d) for d in self.random.choice(others, 2, replace=False))
        taken = divide_at_random(
            self._pair(one, other),
            self.groups,
            self.counts[:, [one, other]],
            self.makespan_s * (1 - LEAST_GAIN),
            self.random,
        )
        if taken is not None and self._within_slots(one, other, taken):
            self._give(one, other, taken)

    def _evened(self, busiest: int, other: int) -> bool:
        taken = divide(
            self._pair(busiest, other), self.groups, self.counts[:, [busiest, other]], self.random
        )
        if taken is None or not self._within_slots(busiest, other, taken):
            return False
        before = self.counts[:, [busiest, other]], self.loads_s[[busiest, other]]
        self._give(busiest, other, taken)
        if self.loads_s[[busiest, other]].max() < before[1].max() * (1 - LEAST_GAIN):
            return True
        self.counts[:, [busiest, other]], self.loads_s[[busiest, other]] = before
        return False

    def _within_slots(self, one: int, other: int, taken: Ints) -> bool:
        """Whether both devices have slots for what they would have."""
        rest = self.counts[:, one] + self.counts[:, other] - taken
        slots = self.layer.slots
        return slots is None or all(
            (self.member @ counts > 0).sum() <= slots for counts in (taken, rest)
        )

    def _give(self, one: int, other: int, taken: Ints) -> None:
        """`taken` [classes] of what both have to the one device, the rest to the other."""
        both = self.counts[:, one] + self.counts[:, other]
        self.counts[:, one], self.counts[:, other] = taken, both - taken
        self.loads_s[[one, other]] = self._load(one), self._load(other)

    def _pair(self, one: int, other: int) -> Pair:
        layer, both = self.layer, [one, other]
        holding = int(self.counts[:, one].sum()) if layer.equal_counts else None
        return Pair(
            self.classes.cost_s[0][:, both],
            self.classes.charge_s[0][:, both],
            layer.launch_s[0, both],
            holding,
        )

    def _load(self, device: int) -> float:
        counts = self.counts[:, device]
        if not counts.any() and self.layer.slots is None:
            return 0.0
        present = self.member @ counts > 0
        charges = self.classes.charge_s[0, present, device].sum()
        own_s = counts @ self.classes.cost_s[0, :, device]
        return float(own_s + charges + self.layer.launch_s[0, device])
