"""Filling a device with a given number of whole items: the knapsack with a cardinality.

The dynamic program of `knapsack` with one table a number of items (Martello & Toth 1990).
"""

from dataclasses import dataclass

import numpy as np

from solver.configurations.filling import after_launch, check, left_by_launch
from solver.configurations.grid import Grid
from solver.placement.exact import Deadline
from solver.problem import Floats, Ints


class CountedKnapsack:
    """The most valuable sets of 0 to `most` items for every capacity below `capacities`."""

    def __init__(
        self,
        grid: Grid,
        of_type: int,
        values: Floats,
        most: int,
        capacities: int,
        deadline: Deadline,
    ) -> None:
        """`values` [items], at least 0."""
        self.members = grid.members
        self.item = grid.item[:, of_type]
        self.charge = grid.charge[:, of_type]
        self.launch = int(grid.launch[of_type])
        shape = (most + 1, capacities)
        self.taken = np.zeros((len(values), *shape), dtype=np.bool_)
        self.entered = np.zeros((len(self.members), *shape), dtype=np.bool_)
        self.table = np.full(shape, -np.inf)
        self.table[0] = 0.0
        for group, items in enumerate(self.members):
            paid = np.full(shape, -np.inf)
            charge = self.charge[group]
            paid[:, charge:] = self.table[:, : max(capacities - charge, 0)]
            for item in items:
                check(deadline)
                cost = self.item[item]
                with_item = paid[:-1, : max(capacities - cost, 0)] + values[item]
                np.greater(with_item, paid[1:, cost:], out=self.taken[item, 1:, cost:])
                np.maximum(with_item, paid[1:, cost:], out=paid[1:, cost:])
            np.greater(paid, self.table, out=self.entered[group])
            np.maximum(paid, self.table, out=self.table)

    def holding(self, count: int) -> "CountedFilling":
        """The fillings with exactly so many items; where none fits, worth nothing."""
        table = np.maximum(self.table[count], 0.0)
        return CountedFilling(self, count, after_launch(table, self.launch, table.size))


@dataclass(frozen=True, eq=False)
class CountedFilling:
    """The sets of exactly `count` items among those of `tables`."""

    tables: CountedKnapsack
    count: int
    best: Floats

    def columns(self, capacities: Ints) -> Floats:
        """The items in the best set of each of these capacities, [capacities, items] of 0 and 1."""
        tables = self.tables
        left = left_by_launch(capacities, tables.launch)
        count = np.full(len(left), self.count)
        chosen = np.zeros((len(left), len(tables.item)))
        for group in reversed(range(len(tables.members))):
            entered = tables.entered[group, count, left]
            for item in reversed(tables.members[group]):
                here = entered & tables.taken[item, count, left]
                chosen[:, item] = here
                left = left - here * tables.item[item]
                count = count - here
            left = left - entered * tables.charge[group]
        return chosen
