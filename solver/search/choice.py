"""Choose one placement per layer, of those found so far, for the least worst case.

    minimise    T
    sum_l sum_p makespan_s[l, p, w] x[l, p] <= T      every workload w
    sum_p x[l, p] = 1                                 every layer takes one of its placements

As a linear program (the master of Dantzig and Wolfe, Operations Research 8, 1960) its duals say
how much each workload counts; as an integer program, in PuLP, it chooses. A descent by one layer at
a time is held outside. Times are scaled: the solvers' tolerances are absolute.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pulp
from scipy.optimize import linprog

from solver.deadline import Deadline
from solver.exact.cbc import LEAST_TIME_S, quiet, run_cbc
from solver.problem import LayerProblem
from solver.shares import Floats, Ints, Shares


@dataclass(frozen=True, eq=False)
class Option:
    """One placement of a layer, and its makespans_s [workloads]."""

    shares: Shares
    makespans_s: Floats
    searched: bool = False


Choice = list[Option]
"""One placement of every layer."""


def worst_s(choice: Choice) -> float:
    """The largest workload's sum over layers, seconds."""
    return float(np.sum([option.makespans_s for option in choice], axis=0).max())


class Placements:
    """The placements found of every layer, but those that another beats in every workload."""

    def __init__(self, layers: Sequence[LayerProblem]) -> None:
        self.layers = layers
        self.options: list[Choice] = [[] for _ in layers]

    def add(self, layer: int, shares: Shares, *, searched: bool = False) -> Option:
        """The placement as an option, kept if it is worth keeping."""
        makespans_s = self.layers[layer].loads_of_shares(shares).max(axis=1)
        new = Option(shares, makespans_s, searched)
        known = self.options[layer]
        if not any((option.makespans_s <= makespans_s).all() for option in known):
            kept = [o for o in known if not (makespans_s <= o.makespans_s).all()]
            self.options[layer] = [*kept, new]
        return new

    def flat(self) -> tuple[Choice, Ints, Floats]:
        """All options, the layer of each [options], and makespans [options, workloads]."""
        every = [option for options in self.options for option in options]
        counts = [len(options) for options in self.options]
        layer_of = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        return every, layer_of, np.stack([option.makespans_s for option in every])

    def largest(self, values: Floats) -> Choice:
        """Every layer's option of the largest value, `values [options]` as in `flat`."""
        ends = np.cumsum([len(options) for options in self.options])[:-1]
        parts = zip(self.options, np.split(values, ends), strict=True)
        return [options[int(part.argmax())] for options, part in parts]


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The linear program's duals [workloads], each layer's largest part, and its value."""

    multipliers: Floats
    rounded: Choice
    value_s: float


def relaxed(pool: Placements, deadline: Deadline) -> Relaxed | None:
    """The choice with placements in fractions; None where cut short."""
    _, layer_of, makespans_s = pool.flat()
    options, workloads = makespans_s.shape
    layers, scale = len(pool.layers), float(makespans_s.max())
    found = linprog(
        np.append(np.zeros(options), 1.0),
        A_ub=np.column_stack([makespans_s.T / scale, -np.ones(workloads)]),
        b_ub=np.zeros(workloads),
        A_eq=np.column_stack([np.arange(layers)[:, None] == layer_of, np.zeros(layers)]),
        b_eq=np.ones(layers),
        method="highs",
        options={"time_limit": max(deadline.left_s, 0.01)},
    )
    if found.status != 0 or found.x is None or found.fun is None:
        return None
    duals = np.maximum(-found.ineqlin.marginals, 0.0)
    return Relaxed(duals / duals.sum(), pool.largest(found.x[:-1]), found.fun * scale)


def chosen(
    pool: Placements, start: Choice, enough_s: float, gap: float, deadline: Deadline
) -> Choice:
    """The best choice of the pool and of what surrounds it, until `enough_s` or no help."""
    choice, before_s = start, np.inf
    while enough_s < worst_s(choice) < before_s:
        before_s = worst_s(choice)
        choice = _surrounded(pool, choice, deadline)
        choice = _integer_program(pool, choice, gap, deadline)
    return choice


def descended(pool: Placements, start: Choice, deadline: Deadline) -> Choice:
    """Change the layer that helps most, again and again, while the worst case falls."""
    choice = list(start)
    every, layer_of, makespans_s = pool.flat()
    while deadline.left_s > 0:
        own_s = np.stack([option.makespans_s for option in choice])
        after = (own_s.sum(axis=0) - own_s[layer_of] + makespans_s).max(axis=1)
        best = int(after.argmin())
        if after[best] >= worst_s(choice) * (1 - 1e-12):
            break
        choice[layer_of[best]] = every[best]
    return choice


def _surrounded(pool: Placements, choice: Choice, deadline: Deadline) -> Choice:
    """Descend with every layer's moves and swaps as further placements."""
    half = deadline.within(deadline.left_s / 2)
    for index, option in enumerate(choice):
        for shares in _neighbours(pool.layers[index], option.shares):
            if half.left_s <= 0:
                return choice
            pool.add(index, shares)
    return descended(pool, choice, deadline)


def _neighbours(layer: LayerProblem, shares: Shares) -> Iterator[Shares]:
    """One item moved, or two swapped; none where an item is divided."""
    if shares.divided:
        return
    device_of = shares.assignment
    for item, device in [] if layer.equal_counts else np.argwhere(shares.dense == 0):
        moved = device_of.copy()
        moved[item] = device
        if layer.allows(moved):
            yield layer.whole(moved)
    for one, other in np.argwhere(device_of[:, None] < device_of):
        swapped = device_of.copy()
        swapped[[one, other]] = device_of[[other, one]]
        if layer.allows(swapped):
            yield layer.whole(swapped)


def _integer_program(pool: Placements, start: Choice, gap: float, deadline: Deadline) -> Choice:
    """The best choice of the pool, or `start` where CBC has no time for better."""
    options, layer_of, makespans_s = pool.flat()
    with quiet():
        program = pulp.LpProblem("worst", pulp.LpMinimize)
        largest = pulp.LpVariable("T", lowBound=0)
        x = [pulp.LpVariable(f"x_{i}", 0, 1, "Binary") for i in range(len(layer_of))]
        program += largest
        for layer in range(len(pool.layers)):
            program += pulp.lpSum(x[i] for i in np.flatnonzero(layer_of == layer)) == 1
        for of_workload in makespans_s.T * (1000 / worst_s(start)):
            if deadline.left_s < LEAST_TIME_S:
                return start
            program += pulp.lpDot(of_workload.tolist(), x) <= largest
        taken = {id(option) for option in start}
        for variable, option in zip(x, options, strict=True):
            variable.setInitialValue(int(id(option) in taken))
        largest.setInitialValue(1000)
    if run_cbc(program, gap, deadline) == "nothing":
        return start
    values = np.array([variable.value() or 0.0 for variable in x])
    return min(start, descended(pool, pool.largest(values), deadline), key=worst_s)
