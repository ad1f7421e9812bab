"""The cheapest budgets that lose at most so much: `solver.budgets.least_loss` by a total not given.

The total is bisected. What the least loss of a total is does not depend on the bound, so that of
two bounds the bisection goes the same way until a total serves the larger one alone; from there it
looks below that total for this one, and above it for the other: a larger bound never draws more.
"""

from dataclasses import dataclass

import numpy as np

from solver.budgets.curves import Floats, Ints
from solver.budgets.least_loss import least_loss
from solver.budgets.max_min import Cost
from solver.deadline import Deadline

PRECISION = 1e-3
"""Of the total, what the bisection leaves open."""


@dataclass(frozen=True, eq=False)
class Cheapest:
    """pieces [pools, heads] of a `total` a pool; no total below `proved` keeps the bound."""

    pieces: Ints
    total: int
    proved: int

    @property
    def gap(self) -> float:
        return 1 - self.proved / self.total


def cheapest(
    lost: Floats, bound: float, floor: int, cost: Cost, tolerance: float, deadline: Deadline
) -> Cheapest:
    """The least total, the same for every pool, within which budgets lose at most `bound` in all.

    lost [pools, heads, pieces]: entry i is what a budget of i + 1 pieces loses; the last loses
    nothing. Until the deadline the least loss of a total is found within `tolerance`, and then as
    it comes; cancelled, the bisection ends with the least total so far.
    """
    _, heads, most = lost.shape
    low, high = (heads * int(cost(np.array([pieces]))[0]) for pieces in (floor, most))
    proved, best = low, np.full(lost.shape[:-1], most, dtype=np.int64)
    found = least_loss(lost, low, floor, cost, tolerance, deadline)
    if found.loss <= bound:
        return Cheapest(found.pieces, low, low)
    while high - low > max(1, int(PRECISION * high)) and not deadline.cancelled.is_set():
        middle = (low + high) // 2
        found = least_loss(lost, middle, floor, cost, tolerance, deadline)
        if found.loss <= bound:
            high, best = middle, found.pieces
            continue
        low = middle
        if found.lower_bound > bound:
            proved = middle + 1
    return Cheapest(best, high, proved)
