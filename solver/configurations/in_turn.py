"""Placements by filling devices one after the other, each with what is worth most of the rest.

The sequential value correction heuristic of cutting stock (Mukhacheva & Zalgaller 1993; Belov &
Scheithauer 2007), with values scattered about the multipliers of the configuration bound, by item
and by group, and makespans to aim at between the bound and the best placement so far.
"""

from dataclasses import dataclass

import numpy as np

from solver.configurations.devices import Kind, affordable_levels, fill
from solver.configurations.filling import OutOfTimeError
from solver.configurations.grid import Grid, make_grid
from solver.placement.exact import Deadline
from solver.problem import Assignment, Floats, Ints

SPREADS = (0.05, 0.2, 0.5)
"""Standard deviations of the logarithms of the factors by which values are scattered."""
LEVELS = 2_000
TAKEN = -1.0
"""The value of an item that no device may take any more."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Costs by device type as `configuration_bound` takes them, and every device.

    type_of [devices]; counts [devices] the items of every device, or None where they are free.
    """

    item_s: Floats
    charge_s: Floats
    launch_s: Floats
    group_of: Ints
    type_of: Ints
    counts: Ints | None

    def loads(self, assignment: Assignment) -> Floats:
        """Seconds of every device, of the items placed (-1: not yet), [devices]."""
        placed = np.flatnonzero(assignment >= 0)
        where = assignment[placed]
        own_s = self.item_s[placed, self.type_of[where]]
        has = np.zeros((len(self.charge_s), len(self.type_of)), dtype=np.bool_)
        has[self.group_of[placed], where] = True
        charges = np.where(has, self.charge_s[:, self.type_of], 0.0).sum(axis=0)
        launches = np.where(has.any(axis=0), self.launch_s[self.type_of], 0.0)
        return np.asarray(np.bincount(where, own_s, len(self.type_of)) + charges + launches)


def fill_in_turn(
    layer: Layer,
    values: Floats,
    bound_s: float,
    reached_s: float,
    deadline: Deadline,
    *,
    tries: int = 200,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Assignment | None:
    """The best placement found with a makespan below `reached_s`, or None.

    `values` [items] are the multipliers of the bound; equal seeds give equal tries.
    """
    random = np.random.default_rng(seed)
    grid = make_grid(
        layer.item_s,
        layer.charge_s,
        layer.launch_s,
        layer.group_of,
        reached_s,
        min(LEVELS, affordable_levels(_kinds(layer), len(values))),
        divisible=False,
    )
    best, best_s = None, reached_s
    try:
        for _ in range(tries):
            if bound_s >= best_s * (1 - tolerance):
                break
            aim = grid.capacity(random.uniform(bound_s, best_s))
            tried = _fill(layer, grid, _scattered(layer, values, random), aim, random, deadline)
            makespan_s = float(layer.loads(tried).max())
            if makespan_s < best_s and (tried >= 0).all():
                best, best_s = tried, makespan_s
    except OutOfTimeError:
        pass
    return best


def _kinds(layer: Layer) -> list[Kind]:
    """One kind a device."""
    counts = [None] * len(layer.type_of) if layer.counts is None else layer.counts.tolist()
    return [Kind(int(t), count, 1) for t, count in zip(layer.type_of, counts, strict=True)]


def _scattered(layer: Layer, values: Floats, random: np.random.Generator) -> Floats:
    """Values times log-normal factors, of every item and of every group."""
    spread = random.choice(SPREADS)
    by_group = random.standard_normal(len(layer.charge_s))[layer.group_of]
    by_item = random.standard_normal(len(values))
    least = max(float(values.max()), 1.0) * 1e-6
    factors = np.exp(spread * (by_item + by_group))
    return np.asarray(np.maximum(values, least) * factors, dtype=np.float64)


def _fill(
    layer: Layer,
    grid: Grid,
    values: Floats,
    aim: int,
    random: np.random.Generator,
    deadline: Deadline,
) -> Assignment:
    """Fill the devices to the capacity `aim`, then add what is left where it ends first."""
    kinds = _kinds(layer)
    values = values.copy()
    assignment = np.full(len(values), -1, dtype=np.int64)
    for device in random.permutation(len(kinds)):
        filling = fill(grid, [kinds[device]], values, aim + 1, deadline)[0]
        chosen = filling.columns(np.array([aim]))[0] > 0
        assignment[chosen] = device
        values[chosen] = TAKEN
        if (values == TAKEN).all():
            break
    left = np.flatnonzero(assignment < 0)
    for item in left[np.argsort(-layer.item_s[left].min(axis=1), kind="stable")]:
        assignment[item] = _first_to_end(layer, assignment, item)
    return assignment


def _first_to_end(layer: Layer, assignment: Assignment, item: int) -> int:
    """The device that ends first with the item on it, among those that may have one more."""
    ends = layer.loads(assignment)
    here = np.isin(np.arange(len(ends)), assignment[layer.group_of == layer.group_of[item]])
    ends = ends + layer.item_s[item, layer.type_of]
    ends = ends + np.where(here, 0.0, layer.charge_s[layer.group_of[item], layer.type_of])
    if layer.counts is not None:
        held = np.bincount(assignment[assignment >= 0], minlength=len(ends))
        ends = np.where(held < layer.counts, ends, np.inf)
    return int(ends.argmin())
