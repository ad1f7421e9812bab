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
from solver.divide.linear_program import best_shares
from solver.problem import LayerProblem
from solver.shares import Shares


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
    own_s = layer.blended_s[shares.item, shares.device] * shares.share
    drops = []
    for is_group, row in ((True, layer.group_of[shares.item]), (False, shares.item)):
        pairs, pair = np.unique(row * layer.devices + shares.device, return_inverse=True)
        rows, devices = np.divmod(pairs, layer.devices)
        several = np.bincount(rows)[rows] > 1
        found = zip(np.bincount(pair, own_s)[several], rows[several], devices[several], strict=True)
        drops += [
            _Drop(float(seconds), is_group, int(row), int(device)) for seconds, row, device in found
        ]
    return sorted(drops)


def _without(layer: LayerProblem, shares: Shares, drop: _Drop) -> Shares | None:
    """The support after a drop; None where there is nothing to drop any more."""
    row_of = layer.group_of[shares.item] if drop.is_group else shares.item
    own = row_of == drop.row
    given = own & (shares.device == drop.device)
    kept = own & ~given
    if not given.any() or not kept.any():
        return None
    homeless = np.setdiff1d(shares.item[given], shares.item[kept])
    elsewhere = np.unique(shares.device[kept])
    loads = layer.weights @ layer.loads_of_shares(shares)
    taker = elsewhere[loads[elsewhere].argmin()]
    item = np.append(shares.item[~given], homeless)
    device = np.append(shares.device[~given], np.full(len(homeless), taker))
    return Shares.cleaned(item, device, np.ones(len(item)), layer.items, layer.devices)


def _least_s(layer: LayerProblem, support: Shares) -> float:
    """A quick bound for a support: devices that share no item cannot even each other out."""
    if not layer.identical:
        return 0.0
    edges = (support.item, support.items + support.device)
    nodes = support.items + support.devices
    graph = csr_array((np.ones(len(support.item)), edges), shape=(nodes, nodes))
    count, label = connected_components(graph, directed=False)
    of_device = label[support.items :]
    size = np.bincount(of_device, minlength=count)
    loads = layer.loads_of_shares(support.even())
    means = [
        np.bincount(of_device, weights=row, minlength=count) / np.maximum(size, 1) for row in loads
    ]
    return layer.objective(np.stack(means)) * (1 - 1e-9)
