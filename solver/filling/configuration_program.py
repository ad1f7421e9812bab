"""The configuration bound on a layer's makespan, by column generation.

A configuration is what one device can do within T. If multipliers of the items make all devices'
most valuable configurations together worth less than all items, no placement has a makespan of T
(the dual of Gilmore & Gomory's cutting-stock program 1961, as a bound at any multipliers: Lasdon
1970, Farley 1990). The fillings of a device are priced for every T at once, so that each try at
multipliers proves the largest T it can. Multipliers come from a restricted master for the T aimed
at, drawn towards the best so far (Wentges 1997): first the T whose refutation would end the search,
then ever nearer to the least that is possible in fractions.
"""

from contextlib import suppress
from typing import NamedTuple

import numpy as np

from solver.deadline import Deadline
from solver.filling.cover import Cover
from solver.filling.grid import alike, make_grid
from solver.filling.knapsack import DividedKnapsack, Filling, Knapsack, OutOfTimeError
from solver.filling.master import Master
from solver.integers import SAFETY, seconds_of
from solver.problem import LayerProblem
from solver.shares import Floats, Ints

SMOOTHING = 0.5
"""Weight of the multipliers that proved most so far."""
COLUMNS = 10
"""Columns taken from one table: the best of the largest capacities."""
STALLED = 1 / 5
"""The search ends when it gained less than this part of the tolerance ..."""
PATIENCE = 40
"""... in this many tries and one more a class of items."""

LEAST_LEVELS, MOST_LEVELS = 1_500, 16_000
"""Capacities of a table."""
TABLE = 8_000_000
"""Cells of all tables of one pricing: about 40 ms."""

PROOF = "configuration program"


class Kind(NamedTuple):
    """Devices that can be filled alike: one type, and with equal counts one number of items.

    `of_type` is the type's place among those of the layer.
    """

    of_type: int
    holding: int | None
    devices: int


class ConfigurationProgram:
    """What one layer's devices can be filled with; `least` is the smallest capacity not refuted.

    Several workloads are filled by their blend: what the weighted loads of one device reach at
    most, no weighted sum of largest loads is below. Fillings of whole items go to `cover`, which
    puts placements together from them.
    """

    def __init__(self, layer: LayerProblem, reached_s: float) -> None:
        """`reached_s`: the makespan of some placement."""
        self.types, first, count = np.unique(layer.type_of, return_index=True, return_counts=True)
        self.divisible = layer.divisible
        self.kinds = _kinds(layer, count)
        self.grid = make_grid(
            layer.blended_s[:, first],
            np.tensordot(layer.weights, layer.group_s, 1)[:, first],
            (layer.weights @ layer.launch_s)[first],
            layer.group_of,
            reached_s,
            _affordable_levels(self.kinds, layer.items),
            divisible=layer.divisible,
        )
        self.class_of = alike(self.grid)
        self.items_of_class = np.bincount(self.class_of)
        self.master = Master(self.items_of_class, np.array([kind.devices for kind in self.kinds]))
        self.best = self._first_values()
        self.least = 0
        self.cover = None if layer.divisible or layer.workloads > 1 else Cover(layer, reached_s)

    def bound_s(
        self, known_s: float, reached_s: float, tolerance: float, deadline: Deadline
    ) -> float:
        """Seconds that no placement is below: at least `known_s`, and at most `reached_s`."""
        self.least = max(self.least, self.grid.capacity(known_s))
        reached = self.grid.capacity(reached_s)
        if known_s < reached_s * (1 - tolerance) and deadline.left_s > 0:
            with suppress(OutOfTimeError):
                self._search(reached, tolerance, deadline)
        return max(known_s, min(seconds_of(self.least, self.grid.scale), reached_s))

    def _search(self, reached: int, tolerance: float, deadline: Deadline) -> None:
        """Raise `least` until it cannot rise, is near enough, stalls, or time is out."""
        enough = reached * (1 - tolerance)
        possible, aim = reached, max(self.least, int(np.ceil(enough)) - 1)
        values, smoothed = self.best, False
        apart = [possible - self.least]
        patience = PATIENCE + len(values)
        while self.least < min(enough, possible):
            before = self.least
            fresh = self._price(values, reached, aim, deadline)
            if self.least > before:
                self.best = values
            elif not fresh and not smoothed:
                return
            apart.append(possible - self.least)
            if len(apart) > patience:
                gained = apart[-patience] - apart[-1]
                if gained < STALLED * tolerance * self.least:
                    return
            if self.least > aim:
                aim = (self.least + possible) // 2
            answer = self.master.multipliers(aim, deadline)
            while answer is not None and answer[1] >= SAFETY and self.least < aim:
                possible, aim = aim, (self.least + aim - 1) // 2
                answer = self.master.multipliers(aim, deadline)
            if answer is None or answer[1] >= SAFETY:
                return
            smoothed = fresh > 0
            weight = SMOOTHING if smoothed else 0.0
            values = weight * self.best + (1 - weight) * answer[0]

    def _first_values(self) -> Floats:
        """An item's cost and its part of the charge where they are least; [classes], of sum 1."""
        worth = self.grid.item.min(axis=1).astype(np.float64)
        for group, items in enumerate(self.grid.members):
            worth[items] += self.grid.charge[group].min() / max(len(items), 1)
        of_class = np.bincount(self.class_of, worth) / self.items_of_class
        total = float(of_class @ self.items_of_class)
        return np.asarray(of_class / total if total > 0 else np.full(len(of_class), 1.0))

    def _price(self, values: Floats, reached: int, aim: int, deadline: Deadline) -> int:
        """Refute what these multipliers [classes] can; how many new columns they gave."""
        fillings = self._fill(values[self.class_of], reached + 1, deadline)
        worth = np.zeros(reached + 1)
        for kind, filling in zip(self.kinds, fillings, strict=True):
            worth += kind.devices * filling.best
        total = float(values @ self.items_of_class)
        self.least = max(self.least, int(np.searchsorted(worth, SAFETY * total)))
        within = min(max(aim, self.least), reached)
        return sum(self._take(kind, filling, within) for kind, filling in enumerate(fillings))

    def _fill(self, values: Floats, capacities: int, deadline: Deadline) -> list[Filling]:
        """Every kind's best fillings, by `values` [items], for all capacities below."""
        grid, kinds = self.grid, self.kinds
        if self.divisible:
            return [DividedKnapsack(grid, k.of_type, values, capacities, deadline) for k in kinds]
        counts = [kind.holding for kind in kinds if kind.holding is not None]
        if not counts:
            tables = (Knapsack(grid, k.of_type, values, capacities, deadline) for k in kinds)
            return [table.holding(None) for table in tables]
        counted = Knapsack(grid, kinds[0].of_type, values, capacities, deadline, max(counts))
        return [counted.holding(count) for count in counts]

    def _take(self, kind: int, filling: Filling, within: int) -> int:
        """Add the best fillings of the largest capacities to the master; how many were new."""
        best = filling.best[: within + 1]
        rises = np.flatnonzero(np.diff(best, prepend=0.0) > 0)
        if not len(rises):
            return 0
        needs = rises[-COLUMNS:]
        shares = filling.columns(needs)
        of_class = np.zeros((len(shares), len(self.items_of_class)))
        np.add.at(of_class.T, self.class_of, shares.T)
        new = self.master.add(kind, of_class, needs)
        if self.cover is not None:
            self.cover.add(int(self.types[self.kinds[kind].of_type]), shares[new])
        return int(new.sum())


def _kinds(layer: LayerProblem, devices_of_type: Ints) -> list[Kind]:
    """The kinds of device; equal counts are let go where their tables are too large."""
    counted = layer.equal_counts and layer.identical and not layer.divisible
    if not counted or layer.items * (int(layer.counts.max()) + 1) > TABLE // LEAST_LEVELS:
        return [Kind(t, None, int(n)) for t, n in enumerate(devices_of_type) if n > 0]
    numbers, times = np.unique(layer.counts, return_counts=True)
    return [Kind(0, int(n), int(k)) for n, k in zip(numbers, times, strict=True)]


def _affordable_levels(kinds: list[Kind], items: int) -> int:
    """How fine the grid may be."""
    counts = [kind.holding for kind in kinds if kind.holding is not None]
    rows = items * (max(counts) + 1 if counts else len(kinds))
    return int(np.clip(TABLE // rows, LEAST_LEVELS, MOST_LEVELS))
