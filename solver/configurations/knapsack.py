"""Filling a device with whole items: the 0-1 knapsack with a charge per group touched.

The dynamic program over capacities (Bellman 1957; Martello & Toth, Knapsack Problems, 1990) with
two states a group: not entered, or its charge paid.
"""

import numpy as np

from solver.configurations.filling import after_launch, check, left_by_launch
from solver.configurations.grid import Grid
from solver.placement.exact import Deadline
from solver.problem import Floats, Ints


class Knapsack:
    """The most valuable sets of items for every capacity below `capacities` of one type."""

    def __init__(
        self, grid: Grid, of_type: int, values: Floats, capacities: int, deadline: Deadline
    ) -> None:
        """`values` [items]; items of no value stay out."""
        self.members = grid.members
        self.item = grid.item[:, of_type]
        self.charge = grid.charge[:, of_type]
        self.launch = int(grid.launch[of_type])
        self.taken = np.zeros((len(values), capacities), dtype=np.bool_)
        self.entered = np.zeros((len(self.members), capacities), dtype=np.bool_)
        table = np.zeros(capacities)
        for group, items in enumerate(self.members):
            check(deadline)
            worthwhile = items[values[items] > 0]
            if not len(worthwhile):
                continue
            paid = np.full(capacities, -np.inf)
            charge = self.charge[group]
            paid[charge:] = table[: max(capacities - charge, 0)]
            for item in worthwhile:
                cost = self.item[item]
                with_item = paid[: max(capacities - cost, 0)] + values[item]
                np.greater(with_item, paid[cost:], out=self.taken[item, cost:])
                np.maximum(with_item, paid[cost:], out=paid[cost:])
            np.greater(paid, table, out=self.entered[group])
            np.maximum(paid, table, out=table)
        self.best = after_launch(table, self.launch, capacities)

    def columns(self, capacities: Ints) -> Floats:
        """The items in the best set of each of these capacities, [capacities, items] of 0 and 1."""
        left = left_by_launch(capacities, self.launch)
        chosen = np.zeros((len(left), len(self.item)))
        for group in reversed(range(len(self.members))):
            entered = self.entered[group, left]
            for item in reversed(self.members[group]):
                here = entered & self.taken[item, left]
                chosen[:, item] = here
                left = left - here * self.item[item]
            left = left - entered * self.charge[group]
        return chosen
