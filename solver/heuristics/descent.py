"""Steepest descent on the busiest device, in all layers at once.

Move one item off the busiest device, or swap one of its items for another device's, as long as
that lowers the larger of the two loads: the interchange neighbourhood of makespan local search
(Finn & Horowitz 1979) without its plateaus. One numpy step serves every layer, so that a layer of
64 heads costs a fraction of a millisecond.

For costs that add up item by item: no charge is shared between the items of a group.
"""

import numpy as np
from numpy.typing import NDArray

from solver.deadline import Deadline
from solver.shares import Floats, Ints

MOST_STEPS = 1000
LEAST_GAIN = 1e-12
"""Of the busiest load: smaller gains are rounding."""


def descend(item_s: Floats, start: Ints, deadline: Deadline, *, swaps_only: bool = False) -> Ints:
    """Devices `[layers, items]` no worse than `start`; `item_s` [layers, items, devices].

    With `swaps_only` every device keeps its number of items.
    """
    assignment = start.copy()
    layers, _, devices = item_s.shape
    own_s = np.take_along_axis(item_s, assignment[..., None], axis=2)[..., 0]
    loads = np.zeros((layers, devices))
    np.add.at(loads, (np.arange(layers)[:, None], assignment), own_s)
    open_ = np.arange(layers)
    for _ in range(MOST_STEPS):
        if not len(open_) or deadline.left_s <= 0:
            break
        improved = _step(item_s[open_], assignment, loads, open_, swaps_only)
        open_ = open_[improved]
    return assignment


def _step(
    item_s: Floats, assignment: Ints, loads: Floats, open_: Ints, swaps_only: bool
) -> NDArray[np.bool_]:
    """Apply each open layer's best exchange in place; which layers found one, `[open]`."""
    rows, (_, items, devices) = np.arange(len(open_)), item_s.shape
    where, load = assignment[open_], loads[open_]
    busiest = load.argmax(axis=1)
    peak = load[rows, busiest]
    on_it = where == busiest[:, None]
    most = int(on_it.sum(axis=1).max())
    source = np.argsort(~on_it, axis=1, kind="stable")[:, :most]  # [open, most]
    real = np.take_along_axis(on_it, source, axis=1)
    at_busiest = item_s[rows[:, None], np.arange(items), busiest[:, None]]  # [open, items]
    leaving = np.take_along_axis(at_busiest, source, axis=1)
    arriving = item_s[rows[:, None], source]  # [open, most, devices]

    # Swap source i for item j: the busiest gets j there, j's device gets i there.
    own = np.take_along_axis(item_s, where[..., None], axis=2)[..., 0]
    swap_here = (peak[:, None] - leaving)[:, :, None] + at_busiest[:, None, :]
    elsewhere = (np.take_along_axis(load, where, axis=1) - own)[:, None, :]
    swap_there = elsewhere + np.take_along_axis(arriving, where[:, None, :].repeat(most, 1), axis=2)
    swaps = np.maximum(swap_here, swap_there)
    swaps[np.broadcast_to(on_it[:, None, :], swaps.shape) | ~real[:, :, None]] = np.inf
    options = [swaps]
    if not swaps_only:
        moves = np.maximum((peak[:, None] - leaving)[:, :, None], load[:, None, :] + arriving)
        moves[rows, :, busiest] = np.inf
        moves[~real] = np.inf
        options.append(moves)
    after = np.concatenate(options, axis=2).reshape(len(rows), -1)
    best = after.argmin(axis=1)
    improved = after[rows, best] < peak * (1 - LEAST_GAIN)

    chosen, target = np.divmod(best, items if swaps_only else items + devices)
    for row in np.flatnonzero(improved):
        layer, i, b = open_[row], source[row, chosen[row]], busiest[row]
        j = target[row]
        swapped = j < items
        d = where[row, j] if swapped else j - items
        loads[layer, b] -= item_s[row, i, b]
        loads[layer, d] += item_s[row, i, d]
        assignment[layer, i] = d
        if swapped:
            loads[layer, d] -= item_s[row, j, d]
            loads[layer, b] += item_s[row, j, b]
            assignment[layer, j] = b
    return np.asarray(improved)
