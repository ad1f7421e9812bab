"""Which of the identical devices takes which part of a layer: a linear assignment per layer.

Devices of one type are interchangeable layer by layer, so that a layer's columns (what one device
does there) can be dealt out anew without changing any makespan. Memory couples the layers. With
the other layers fixed the cost is separable, a linear assignment (Kuhn 1955) within every class
of identical devices; layers take turns until nothing improves. Where only memory counts, the cost
is a convex function of what a device holds already and what the column adds, so that the
assignment is a sort: the most goes where the most is free (rearrangement inequality).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment

from solver.coupling.footprint import Footprint, fetched_pairs
from solver.deadline import Deadline
from solver.exact.symmetry import device_classes
from solver.problem import PlacementProblem
from solver.shares import Floats, Ints, Shares
from solver.solution import LayerSolution

RESTARTS = 30
"""Random starts tried while something is above its limit, over the layers: few need luck."""

EMPHASES = (0.0, 1.0, 10.0)
"""Weights of even memory against bytes fetched: all are tried, the best is taken."""

OVERRUN = 100.0
"""What a byte above the limit costs beside one to fetch."""


@dataclass(frozen=True, eq=False)
class Columns:
    """What is dealt out: for every layer as many columns as devices, device d having column d.

    `held` [layers, columns] bytes; `fetched` [layers, columns, devices] bytes that a device lacks
    of a column now, or None; `limits` [devices] bytes, or None; `classes` identical devices.
    """

    classes: Sequence[Ints]
    held: Floats
    fetched: Floats | None
    limits: Floats | None

    def totals(self, order: Ints) -> Floats:
        """Bytes of every device over all layers, `[devices]`, for columns taken `order`."""
        return np.asarray(np.take_along_axis(self.held, order, axis=1).sum(axis=0))

    def value(self, order: Ints) -> tuple[float, float, float, float]:
        """What is least in turn: largest and summed excess, bytes fetched, largest total."""
        totals = self.totals(order)
        excess = np.zeros(1) if self.limits is None else np.maximum(totals - self.limits, 0)
        fetched = 0.0
        if self.fetched is not None:
            layers, devices = np.indices(order.shape)
            fetched = float(self.fetched[layers, order, devices].sum())
        return float(excess.max()), float(excess.sum()), fetched, float(totals.max())


def relabel(columns: Columns, deadline: Deadline) -> Ints:
    """The column each device takes, `[layers, devices]`: within the limits if that can be found,
    then with the fewest bytes fetched, and never worse than as they are."""
    layers, devices = columns.held.shape
    best = np.tile(np.arange(devices), (layers, 1))
    uneven = np.argsort(-np.ptp(columns.held, axis=1), kind="stable")
    for emphasis in _emphases(columns):
        dealt = _deal_all(columns, emphasis, uneven, deadline)
        best = min(best, _descend(columns, dealt, emphasis, uneven, deadline), key=columns.value)
    rng = np.random.default_rng(0)
    for _ in range(RESTARTS // layers):
        if columns.value(best)[0] == 0 or deadline.left_s <= 0:
            break
        shuffled = _shuffled(columns, rng)
        order = _descend(columns, shuffled, np.inf, rng.permutation(layers), deadline)
        best = min(best, order, key=columns.value)
    # Once memory is seen to, only fewer bytes fetched make an order better.
    return best if columns.fetched is None else _descend(columns, best, 0.0, uneven, deadline)


def _emphases(columns: Columns) -> tuple[float, ...]:
    if columns.limits is None:
        return (0.0,)
    return (np.inf,) if columns.fetched is None else EMPHASES


def _shuffled(columns: Columns, rng: np.random.Generator) -> Ints:
    """Any order within the classes."""
    order = np.empty(columns.held.shape, dtype=np.int64)
    for devices in columns.classes:
        order[:, devices] = [rng.permutation(devices) for _ in order]
    return order


def deal(columns: Columns, layer: int, others: Floats, emphasis: float = np.inf) -> Ints:
    """The best column for each device, `[devices]`, in one layer, `others` [devices] held beside.

    `emphasis` infinite: only memory counts.
    """
    held, order = columns.held[layer], np.arange(len(others))
    taken = others if columns.limits is None else others - columns.limits
    if emphasis == np.inf or columns.fetched is None:
        for devices in columns.classes:
            free_last = devices[np.argsort(-taken[devices], kind="stable")]
            order[free_last] = devices[np.argsort(held[devices], kind="stable")]
        return order
    cost = columns.fetched[layer].copy()
    if columns.limits is not None:
        overrun, limit = held[:, None] + taken[None, :], max(float(columns.limits.max()), 1.0)
        cost += emphasis * (overrun + limit) ** 2 / (2 * limit) + OVERRUN * np.maximum(overrun, 0)
    for devices in columns.classes:
        rows, places = linear_sum_assignment(cost[np.ix_(devices, devices)])
        order[devices[places]] = devices[rows]
    return order


def _deal_all(columns: Columns, emphasis: float, turns: Ints, deadline: Deadline) -> Ints:
    """Deal the layers out one after the other, each beside those before it."""
    layers, devices = columns.held.shape
    order = np.tile(np.arange(devices), (layers, 1))
    totals = np.zeros(devices)
    for layer in turns:
        if deadline.left_s <= 0:
            break
        order[layer] = deal(columns, layer, totals, emphasis)
        totals += columns.held[layer, order[layer]]
    return order


def _descend(
    columns: Columns, order: Ints, emphasis: float, turns: Ints, deadline: Deadline
) -> Ints:
    """Deal each layer out again beside all others, until none gets better."""
    best, improved = columns.value(order), True
    while improved:
        improved = False
        for layer in turns:
            if deadline.left_s <= 0:
                return order
            others = columns.totals(order) - columns.held[layer, order[layer]]
            tried = order.copy()
            tried[layer] = deal(columns, layer, others, emphasis)
            value = columns.value(tried)
            if value < best:
                order, best, improved = tried, value, True
    return order


GRACE_S = 0.1


def with_grace(deadline: Deadline) -> Deadline:
    """Some time even past the deadline, so that what fits in memory at once is not missed."""
    return Deadline(max(deadline.at, time.monotonic() + GRACE_S), deadline.cancelled)


@dataclass(frozen=True, eq=False)
class Shared:
    """Limits `[devices]` in bytes, or None; `held_now`, the heads' shares `[layers]`, or None."""

    problem: PlacementProblem
    footprint: Footprint
    limits: Floats | None
    held_now: Sequence[Shares] | None

    @cached_property
    def classes(self) -> list[Ints]:
        """Devices that may trade places in a layer."""
        return device_classes(self.problem.layer(0))

    def held_bytes(self, layer: int, shares: Shares) -> Floats:
        """Bytes of one layer, `[devices]`, for shares of the problem's items."""
        return self.footprint.held_bytes(layer, self.problem.shares_of_heads(shares))

    def held(self, solutions: Sequence[LayerSolution]) -> Floats:
        """Bytes, `[layers, devices]`."""
        return np.array([self.held_bytes(i, s.shares) for i, s in enumerate(solutions)])

    def overruns(self, solutions: Sequence[LayerSolution]) -> Floats:
        """Bytes above the limits, `[devices]`."""
        totals = self.held(solutions).sum(axis=0)
        return np.zeros_like(totals) if self.limits is None else np.maximum(totals - self.limits, 0)

    def rank(self, solutions: Sequence[LayerSolution]) -> tuple[float, float]:
        """What is better comes first: less above the limits, then fewer seconds."""
        return float(self.overruns(solutions).max()), sum(s.makespan_s for s in solutions)

    def relabelled(
        self, solutions: Sequence[LayerSolution], deadline: Deadline
    ) -> list[LayerSolution]:
        """The same solutions with identical devices dealt out anew, layer by layer."""
        fetched = None if self.held_now is None else self._fetched(solutions, deadline)
        columns = Columns(self.classes, self.held(solutions), fetched, self.limits)
        pairs = zip(solutions, relabel(columns, deadline), strict=True)
        return [replace(s, shares=s.shares.dealt(taken)) for s, taken in pairs]

    def _fetched(self, solutions: Sequence[LayerSolution], deadline: Deadline) -> Floats | None:
        """Bytes a device lacks of a column now, `[layers, columns, devices]`; None out of time."""
        assert self.held_now is not None
        lacking = []
        for index, (solution, now) in enumerate(zip(solutions, self.held_now, strict=True)):
            if deadline.left_s <= 0:
                return None
            wanted = self.problem.shares_of_heads(solution.shares)
            held = (self.footprint.holdings(index, shares) for shares in (wanted, now))
            lacking.append(fetched_pairs(*held))
        return np.array(lacking)
