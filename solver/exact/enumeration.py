"""Small layers by implicit enumeration: every placement that may be best, breadth first.

Items are placed longest first; identical devices are opened in order, so that each partition of
the items is met once (restricted growth strings, Hutchinson, CACM 6, 1963). A partial placement is
dropped when its largest loads, or an even spread of all work, are above what is known. Eight KV
groups have at most 4,140 partitions: any number of workloads is proved in milliseconds, where the
workloads' own bounds together prove nothing.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from solver.deadline import Deadline
from solver.exact.symmetry import device_classes, longest_order
from solver.integers import SAFETY
from solver.problem import LayerProblem
from solver.shares import Floats, Ints
from solver.solution import LayerSolution

MOST_ITEMS = 16
MOST_CELLS = 1_000_000
"""Loads held at a time, over partial placements, workloads and devices: a step takes 50 ms."""


@dataclass(frozen=True, eq=False)
class Partial:
    """Placements of the first items: devices [states, items], loads [states, workloads, devices].

    held [states, groups, devices]: items of a group there.
    """

    devices: Ints
    loads: Floats
    held: NDArray[np.int16]

    @classmethod
    def empty(cls, layer: LayerProblem) -> Self:
        return cls(
            np.zeros((1, layer.items), dtype=np.int64),
            (layer.launch_s if layer.slots is not None else np.zeros_like(layer.launch_s))[None],
            np.zeros((1, layer.groups, layer.devices), dtype=np.int16),
        )

    @property
    def counts(self) -> Ints:
        """Items on every device, `[states, devices]`."""
        return np.asarray(self.held.sum(axis=1), dtype=np.int64)


def enumerate_placements(
    layer: LayerProblem, known: LayerSolution, deadline: Deadline
) -> LayerSolution:
    """The optimum, of equals the one with the flattest loads; `known` where there is too much.

    Flat loads leave room on every device, should other heads turn out longer than planned.
    """
    if layer.items > MOST_ITEMS:
        return known
    known_s = layer.makespan(known.assignment)
    order = longest_order(layer)
    least = layer.item_s.min(axis=2)[:, order]
    left = np.cumsum(least[:, ::-1], axis=1)[:, ::-1] - least
    partial = Partial.empty(layer)
    for place, item in enumerate(order):
        grown = _with_item(layer, partial, int(item), left[:, place], known_s / SAFETY)
        if grown is None or deadline.left_s <= 0:
            return known
        partial = grown
    objective_s = partial.loads.max(axis=2) @ layer.weights
    best = np.flatnonzero(objective_s <= objective_s.min() / SAFETY)
    squares = (partial.loads[best] ** 2).sum(axis=2) @ layer.weights
    assignment = partial.devices[best[squares.argmin()]]
    better = known.place(layer, assignment, searched=True)
    return better.prove(float(objective_s.min()) * SAFETY, "enumeration")


def _with_item(
    layer: LayerProblem, partial: Partial, item: int, left_s: Floats, most_s: float
) -> Partial | None:
    """All placements worth keeping with one item more; None where they are too many.

    left_s [workloads]: the least that the items still to come take together.
    """
    group = int(layer.group_of[item])
    counts = partial.counts[:, None, :]
    charge = np.where(partial.held[:, None, group] == 0, layer.group_s[:, group], 0.0)
    launched = (counts == 0) & (layer.slots is None)
    added = layer.item_s[:, item] + charge + np.where(launched, layer.launch_s, 0.0)
    after = partial.loads + added
    largest = np.maximum(partial.loads.max(axis=2, keepdims=True), after)
    total = partial.loads.sum(axis=2, keepdims=True) + added + left_s[:, None]
    bound_s = np.einsum("w,swd->sd", layer.weights, np.maximum(largest, total / layer.devices))
    allowed = _open(layer, partial.counts)
    if layer.slots is not None:
        full = (partial.held > 0).sum(axis=1) >= layer.slots
        allowed &= (partial.held[:, group] > 0) | ~full
    state, device = np.nonzero(allowed & (bound_s <= most_s))
    if len(state) * layer.workloads * layer.devices > MOST_CELLS:
        return None
    rows = np.arange(len(state))
    kept = Partial(partial.devices[state], partial.loads[state], partial.held[state])
    kept.devices[:, item] = device
    kept.loads[rows, :, device] = after[state, :, device]
    kept.held[rows, group, device] += 1
    return kept


def _open(layer: LayerProblem, counts: Ints) -> NDArray[np.bool_]:
    """Where an item may go, `[states, devices]`: of devices alike, one empty one at most."""
    allowed = counts < layer.counts if layer.equal_counts else np.ones(counts.shape, dtype=bool)
    for devices in device_classes(layer):
        empty = counts[:, devices] == 0
        allowed[:, devices] &= ~empty | (empty.cumsum(axis=1) == 1)
    return allowed
