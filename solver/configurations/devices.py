"""The kinds of devices of a layer, and the table that fills each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from solver.configurations.counted import CountedKnapsack
from solver.configurations.divided import DividedKnapsack
from solver.configurations.filling import Filling
from solver.configurations.grid import Grid
from solver.configurations.knapsack import Knapsack
from solver.placement.exact import Deadline
from solver.problem import Floats, Ints

LEAST_LEVELS, MOST_LEVELS = 1_500, 16_000
"""Capacities of a table."""
TABLE = 8_000_000
"""Cells of all tables of one pricing: about 40 ms."""


class Kind(NamedTuple):
    """Devices that can be filled alike: one type, and with equal counts one number of items."""

    of_type: int
    holding: int | None
    devices: int


def kinds_of(devices_of_type: Ints, counts: Ints | None, items: int) -> list[Kind]:
    """The kinds of device; counts [devices] are let go where their tables are too large."""
    if counts is None or items * (int(counts.max()) + 1) > TABLE // LEAST_LEVELS:
        return [Kind(t, None, int(n)) for t, n in enumerate(devices_of_type) if n > 0]
    numbers, times = np.unique(counts, return_counts=True)
    return [Kind(0, int(n), int(k)) for n, k in zip(numbers, times, strict=True)]


def affordable_levels(kinds: Sequence[Kind], items: int) -> int:
    """How fine the grid may be."""
    counts = [kind.holding for kind in kinds if kind.holding is not None]
    rows = items * (max(counts) + 1 if counts else len(kinds))
    return int(np.clip(TABLE // rows, LEAST_LEVELS, MOST_LEVELS))


def fill(
    grid: Grid,
    kinds: Sequence[Kind],
    values: Floats,
    capacities: int,
    deadline: Deadline,
    *,
    divisible: bool = False,
) -> list[Filling]:
    """Every kind's best fillings, by `values` [items], for all capacities below `capacities`."""
    if divisible:
        return [DividedKnapsack(grid, k.of_type, values, capacities, deadline) for k in kinds]
    counts = [kind.holding for kind in kinds if kind.holding is not None]
    if not counts:
        return [Knapsack(grid, k.of_type, values, capacities, deadline) for k in kinds]
    tables = CountedKnapsack(grid, kinds[0].of_type, values, max(counts), capacities, deadline)
    return [tables.holding(count) for count in counts]
