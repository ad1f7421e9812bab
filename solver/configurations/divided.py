"""Filling a device with parts of items: the fractional knapsack with a charge per group touched.

Adding an item of which any part may be taken is a sliding-window maximum over the capacities
(Pferschy 1999, for the bounded knapsack). The table takes whole grid units of an item. Given the
groups entered, a best filling has one part at most (Dantzig 1957), so that one capacity more makes
up for rounding that part up.
"""

import numpy as np
from scipy.ndimage import maximum_filter1d

from solver.configurations.filling import after_launch, check, left_by_launch
from solver.configurations.grid import Grid
from solver.placement.exact import Deadline
from solver.problem import Floats, Ints


class DividedKnapsack:
    """The most valuable parts of items for every capacity below `capacities` of one type."""

    def __init__(
        self, grid: Grid, of_type: int, values: Floats, capacities: int, deadline: Deadline
    ) -> None:
        """`values` [items], at least 0."""
        self.members = grid.members
        self.item = grid.item[:, of_type]
        self.charge = grid.charge[:, of_type]
        self.launch = int(grid.launch[of_type])
        self.values = values
        capacities += 1
        self.before = np.zeros((len(values), capacities))
        self.entered = np.zeros((len(self.members), capacities), dtype=np.bool_)
        table = np.zeros(capacities)
        for group, items in enumerate(self.members):
            check(deadline)
            paid = np.full(capacities, -np.inf)
            charge = self.charge[group]
            paid[charge:] = table[: max(capacities - charge, 0)]
            for item in items:
                self.before[item] = paid
                paid = _with_parts(paid, int(self.item[item]), float(values[item]))
            np.greater(paid, table, out=self.entered[group])
            np.maximum(paid, table, out=table)
        self.best = after_launch(table, self.launch, capacities)[1:]

    def columns(self, capacities: Ints) -> Floats:
        """The shares in the best filling of each of these capacities, [capacities, items]."""
        lefts = left_by_launch(capacities + 1, self.launch)
        return np.array([self._column(int(left)) for left in lefts])

    def _column(self, left: int) -> Floats:
        shares = np.zeros(len(self.item))
        for group in reversed(range(len(self.members))):
            if not self.entered[group, left]:
                continue
            for item in reversed(self.members[group]):
                cost = int(self.item[item])
                if cost == 0:
                    shares[item] = 1.0
                    continue
                units = np.arange(min(cost, left) + 1)
                worth = self.before[item, left - units] + units * (self.values[item] / cost)
                taken = int(np.argmax(worth))
                shares[item] = taken / cost
                left -= taken
            left -= int(self.charge[group])
        return shares


def _with_parts(table: Floats, cost: int, value: float) -> Floats:
    """The best values when 0 to `cost` units of an item may be added, each value / cost."""
    if cost == 0 or value == 0:
        return table + value
    worth = np.arange(table.size) * (value / cost)
    window = min(cost, table.size - 1) + 1
    highest = maximum_filter1d(
        table - worth, window, mode="constant", cval=-np.inf, origin=(window - 1) // 2
    )
    return np.asarray(highest + worth, dtype=np.float64)
