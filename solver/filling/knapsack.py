"""The most valuable filling of one device for every capacity: whole items, or parts of them.

Dynamic programs over capacities (Bellman 1957; Martello & Toth, Knapsack Problems, 1990) with two
states a group, not entered or its charge paid, and where counts are equal one row a number of items
(the knapsack with a cardinality). Parts of items are a fractional knapsack: adding an item of which
any part may be taken is a sliding-window maximum over the capacities (Pferschy 1999).
"""

from typing import Protocol

import numpy as np
from scipy.ndimage import maximum_filter1d

from solver.deadline import Deadline
from solver.filling.grid import Grid
from solver.shares import Floats, Ints


class OutOfTimeError(Exception):
    """The deadline came, or the search was cancelled, in the middle of a table."""


class Filling(Protocol):
    """Every capacity's most valuable filling of one device."""

    @property
    def best(self) -> Floats:
        """No set of items done within a capacity is worth more, [capacities]."""

    def columns(self, capacities: Ints) -> Floats:
        """The shares of items that fill these capacities best, [capacities, items]."""


class Knapsack:
    """The most valuable sets of whole items for every capacity below `capacities` of one type.

    Of any number of items, or of 0 to `most`, each number in a row of its own.
    """

    def __init__(
        self,
        grid: Grid,
        of_type: int,
        values: Floats,
        capacities: int,
        deadline: Deadline,
        most: int | None = None,
    ) -> None:
        """`values` [items], at least 0."""
        self.members = grid.members
        self.item = grid.item[:, of_type]
        self.charge = grid.charge[:, of_type]
        self.launch = int(grid.launch[of_type])
        self.counted = most is not None
        shape = (1 if most is None else most + 1, capacities)
        self.taken = np.zeros((len(values), *shape), dtype=np.bool_)
        self.entered = np.zeros((len(self.members), *shape), dtype=np.bool_)
        self.table = np.zeros(shape)
        self.table[1:] = -np.inf
        for group, items in enumerate(self.members):
            # Of no value, an item only counts where items are counted.
            items = items if self.counted else items[values[items] > 0]
            if not len(items):
                continue
            paid = np.full(shape, -np.inf)
            charge = self.charge[group]
            paid[:, charge:] = self.table[:, : max(capacities - charge, 0)]
            fewer, more = (paid[:-1], paid[1:]) if self.counted else (paid, paid)
            for item in items:
                _check(deadline)
                cost = self.item[item]
                with_item = fewer[:, : max(capacities - cost, 0)] + values[item]
                taken = self.taken[item, 1:] if self.counted else self.taken[item]
                np.greater(with_item, more[:, cost:], out=taken[:, cost:])
                np.maximum(with_item, more[:, cost:], out=more[:, cost:])
            np.greater(paid, self.table, out=self.entered[group])
            np.maximum(paid, self.table, out=self.table)

    def holding(self, count: int | None) -> "KnapsackRow":
        """The fillings with just so many items, worth nothing where none fits; None: with any."""
        table = np.maximum(self.table[count or 0], 0.0)
        return KnapsackRow(self, count or 0, _after_launch(table, self.launch))


class KnapsackRow:
    """The fillings in one row of a knapsack's tables."""

    def __init__(self, tables: Knapsack, row: int, best: Floats) -> None:
        self.tables, self.row, self.best = tables, row, best

    def columns(self, capacities: Ints) -> Floats:
        """The items in the best set of each of these capacities, [capacities, items] of 0 and 1."""
        tables = self.tables
        left = _left_by_launch(capacities, tables.launch)
        row = np.full(len(left), self.row)
        chosen = np.zeros((len(left), len(tables.item)))
        for group in reversed(range(len(tables.members))):
            entered = tables.entered[group, row, left]
            for item in reversed(tables.members[group]):
                here = entered & tables.taken[item, row, left]
                chosen[:, item] = here
                left = left - here * tables.item[item]
                row = row - here * tables.counted
            left = left - entered * tables.charge[group]
        return chosen


class DividedKnapsack:
    """The most valuable parts of items for every capacity below `capacities` of one type.

    The table takes whole grid units of an item. Given the groups entered, a best filling has one
    part at most (Dantzig 1957), so that one capacity more makes up for rounding that part up.
    """

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
            _check(deadline)
            paid = np.full(capacities, -np.inf)
            charge = self.charge[group]
            paid[charge:] = table[: max(capacities - charge, 0)]
            for item in items:
                self.before[item] = paid
                paid = _with_parts(paid, int(self.item[item]), float(values[item]))
            np.greater(paid, table, out=self.entered[group])
            np.maximum(paid, table, out=table)
        self.best = _after_launch(table, self.launch)[1:]

    def columns(self, capacities: Ints) -> Floats:
        """The shares in the best filling of each of these capacities, [capacities, items]."""
        lefts = _left_by_launch(capacities + 1, self.launch)
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


def _check(deadline: Deadline) -> None:
    if deadline.left_s <= 0:
        raise OutOfTimeError


def _after_launch(table: Floats, launch: int) -> Floats:
    """Best values by whole capacity, from those by what the launch leaves, [capacities]."""
    best = np.zeros(table.size)
    best[launch:] = table[: max(table.size - launch, 0)]
    return best


def _left_by_launch(capacities: Ints, launch: int) -> Ints:
    """What a launch leaves of capacities; nothing where it does not even fit."""
    return np.asarray(np.maximum(capacities - launch, 0), dtype=np.int64)
