"""The configuration bound on a layer's makespan, by column generation.

A configuration is what one device can do within T. If multipliers of the items make all devices'
most valuable configurations together worth less than all items, no placement has a makespan of T
(the dual of Gilmore & Gomory's cutting-stock program 1961, as a bound at any multipliers: Lasdon
1970, Farley 1990). The fillings of a device are priced for every T at once, so that each try at
multipliers proves the largest T it can; multipliers come from a restricted master at the smallest T
not refuted, drawn towards the best so far (Wentges 1997).
"""

import numpy as np

from solver.bounds import SAFETY
from solver.configurations.devices import Kind, affordable_levels, fill, kinds_of
from solver.configurations.filling import Filling, OutOfTimeError
from solver.configurations.grid import Grid, alike, make_grid
from solver.configurations.master import Master
from solver.placement.exact import Deadline
from solver.problem import Floats, Ints

SMOOTHING = 0.5
"""Weight of the multipliers that proved most so far."""
COLUMNS = 10
"""Columns taken from one table: the best of the largest capacities."""
STALLED = 1 / 5
"""The search ends when it gained less than this part of the tolerance ..."""
PATIENCE = 40
"""... in this many tries and one more a class of items."""


def configuration_bound(
    item_s: Floats,
    charge_s: Floats,
    launch_s: Floats,
    group_of: Ints,
    devices_of_type: Ints,
    counts: Ints | None,
    known_s: float,
    reached_s: float,
    deadline: Deadline,
    *,
    divisible: bool = False,
    tolerance: float = 1e-3,
) -> float:
    """Seconds that no placement is below: at least `known_s`, and at most `reached_s`.

    item_s [items, types], charge_s [groups, types], launch_s [types], group_of [items],
    devices_of_type [types]; counts [devices] the items of every device, with one type only.
    """
    kinds = kinds_of(devices_of_type, None if divisible else counts, len(item_s))
    levels = affordable_levels(kinds, len(item_s))
    grid = make_grid(item_s, charge_s, launch_s, group_of, reached_s, levels, divisible=divisible)
    search = _Search(grid, kinds, grid.capacity(known_s), grid.capacity(reached_s), divisible)
    if known_s < reached_s * (1 - tolerance) and deadline.left_s > 0:
        search.run(deadline, tolerance)
    proved_s = SAFETY * search.least / grid.scale
    return max(known_s, min(proved_s, reached_s))


class _Search:
    """Column generation: `least` is the smallest capacity not refuted yet."""

    def __init__(
        self, grid: Grid, kinds: list[Kind], known: int, reached: int, divisible: bool
    ) -> None:
        self.grid = grid
        self.kinds = kinds
        self.least = known
        self.reached = reached
        self.divisible = divisible
        self.class_of = alike(grid)
        self.items_of_class = np.bincount(self.class_of)
        self.devices = np.array([kind.devices for kind in kinds])
        self.master = Master(self.items_of_class, self.devices)
        self.best = self._first_values()

    def run(self, deadline: Deadline, tolerance: float) -> None:
        """Raise `least` until it cannot rise, is near enough, stalls, or time is out."""
        values = self.best
        history = [self.least]
        patience = PATIENCE + len(values)
        smoothed = False
        try:
            while self.least < self.reached * (1 - tolerance):
                before = self.least
                fresh = self._price(values, deadline)
                if self.least > before:
                    self.best = values
                elif not fresh and not smoothed:
                    return
                history.append(self.least)
                if len(history) > patience:
                    gained = self.least - history[-patience]
                    if gained < STALLED * tolerance * self.least:
                        return
                answer = self.master.multipliers(deadline)
                if answer is None or answer[1] >= SAFETY:
                    return
                smoothed = fresh > 0
                weight = SMOOTHING if smoothed else 0.0
                values = weight * self.best + (1 - weight) * answer[0]
        except OutOfTimeError:
            return

    def _first_values(self) -> Floats:
        """An item's cost and its part of the charge where they are least; [classes], of sum 1."""
        worth = self.grid.item.min(axis=1).astype(np.float64)
        for group, items in enumerate(self.grid.members):
            worth[items] += self.grid.charge[group].min() / max(len(items), 1)
        of_class = np.bincount(self.class_of, worth) / self.items_of_class
        total = float(of_class @ self.items_of_class)
        return np.asarray(of_class / total if total > 0 else np.full(len(of_class), 1.0))

    def _price(self, values: Floats, deadline: Deadline) -> int:
        """Refute what these multipliers [classes] can; how many new columns they gave."""
        fillings = fill(
            self.grid,
            self.kinds,
            values[self.class_of],
            self.reached + 1,
            deadline,
            divisible=self.divisible,
        )
        worth = np.zeros(self.reached + 1)
        for kind, filling in zip(self.kinds, fillings, strict=True):
            worth += kind.devices * filling.best
        total = float(values @ self.items_of_class)
        self.least = max(self.least, int(np.searchsorted(worth, SAFETY * total)))
        return sum(self._take(kind, filling) for kind, filling in enumerate(fillings))

    def _take(self, kind: int, filling: Filling) -> int:
        """Add the best fillings of the largest capacities to the master; how many were new."""
        best = filling.best[: min(self.least, self.reached) + 1]
        rises = np.flatnonzero(np.diff(best, prepend=0.0) > 0)
        if not len(rises):
            return 0
        shares = filling.columns(rises[-COLUMNS:])
        of_class = np.zeros((len(shares), len(self.items_of_class)))
        np.add.at(of_class.T, self.class_of, shares.T)
        return self.master.add(kind, of_class)
