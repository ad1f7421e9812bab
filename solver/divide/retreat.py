"""Giving up parts: fewer and cheaper divisions at about the same makespan.

The drop phase of add-drop heuristics for fixed charges (Feldman, Lehrer & Ray 1966): try without a
group's presence on a device, or without a part of an item; what it did goes to a device that has
the group already, and the linear program says what that costs.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from solver.deadline import Deadline
from solver.divide.linear_program import Pairs, best_shares
from solver.problem import LayerProblem, Shares


class _Drop(NamedTuple):
    """A group's (or an item's) row and device, and the seconds it does there."""

    seconds: float
    is_group: bool
    row: int
    device: int


def retreat(layer: LayerProblem, start: Shares, limit_s: float, deadline: Deadline) -> Shares:
    """Shares with some of `start`'s copies and parts given up, within `limit_s` seconds.

    Where `start` itself is above the limit, only what does not raise the makespan is given up.
    """
    best = start
    best_s = layer.objective(layer.loads_of_shares(start))
    for drop in _drops(layer, start):
        if deadline.left_s <= 0:
            break
        support = _without(layer, best, drop)
        allowed_s = max(limit_s, best_s)
        if support is None or _least_s(layer, support) > allowed_s:
            continue
        shares = best_shares(layer, support, deadline)
        if shares is None:
            break
        reached_s = layer.objective(layer.loads_of_shares(shares))
        if reached_s <= allowed_s:
            best, best_s = shares, reached_s
    return best


def _drops(layer: LayerProblem, shares: Shares) -> list[_Drop]:
    """What could be given up, the least work first."""
    own_s = layer.blended_s * shares
    served_s = layer.members @ own_s
    drops = []
    for is_group, seconds in ((True, served_s), (False, own_s)):
        several = (seconds > 0) & ((seconds > 0).sum(axis=1, keepdims=True) > 1)
        drops += [
            _Drop(float(seconds[index, device]), is_group, int(index), int(device))
            for index, device in np.argwhere(several)
        ]
    return sorted(drops)


def _without(layer: LayerProblem, shares: Shares, drop: _Drop) -> Pairs | None:
    """The support after a drop; None where there is nothing to drop any more."""
    support: Pairs = np.asarray(shares > 0)
    at = drop.device
    if not drop.is_group:
        if not support[drop.row, at] or support[drop.row].sum() == 1:
            return None
        support[drop.row, at] = False
        return support
    items = np.flatnonzero(layer.group_of == drop.row)
    elsewhere: Pairs = np.asarray(support[items].any(axis=0))
    if not elsewhere[at] or elsewhere.sum() == 1:
        return None
    elsewhere[at] = False
    support[items, at] = False
    homeless = items[~support[items].any(axis=1)]
    loads = layer.weights @ layer.loads_of_shares(shares)
    support[homeless, np.where(elsewhere, loads, np.inf).argmin()] = True
    return support


def _least_s(layer: LayerProblem, support: Pairs) -> float:
    """A quick bound for a support: devices that share no item cannot even each other out."""
    if not layer.identical:
        return 0.0
    items, devices = support.shape
    pairs = np.nonzero(support)
    graph = csr_array(
        (np.ones(len(pairs[0])), (pairs[0], items + pairs[1])), shape=(items + devices,) * 2
    )
    count, label = connected_components(graph, directed=False)
    shares = support / support.sum(axis=1, keepdims=True)
    of_device = label[items:]
    size = np.bincount(of_device, minlength=count)
    loads = layer.loads_of_shares(shares)
    means = [
        np.bincount(of_device, weights=row, minlength=count) / np.maximum(size, 1) for row in loads
    ]
    return layer.objective(np.stack(means)) * (1 - 1e-9)
