"""One device after another filled as full as a makespan allows, by subset sums.

The construction of bin-packing heuristics with a subset-sum step (Caprara & Pferschy 2004,
"Worst-case analysis of the subset sum algorithm for bin packing"): the longest item left, and the
heaviest subset of a random choice of the others that fits beside it, found by meeting in the middle
(Horowitz & Sahni 1974). For identical devices and costs that add up item by item.
"""

import numpy as np

from solver.problem import Assignment, LayerProblem
from solver.shares import Floats, Ints

OFFERED = 20
"""Items among which the companions of a device's longest item are sought: 1,024 sums a half."""

MOST_UNFILLED = 3
"""Devices left to share the rest when the others are filled."""


def subset_sums(layer: LayerProblem, within_s: float, random: np.random.Generator) -> Assignment:
    """A placement with most devices filled up to `within_s`; the last few may be above it.

    With equal counts every item is heavier by more than all together and than any device's room, so
    that a device whose room is as much larger takes its count at most.
    """
    cost = layer.item_with_charge_s()[0, :, 0]
    room_s = np.full(layer.devices, within_s - float(layer.launch_s[0, 0])) * (1 + 1e-12)
    if layer.equal_counts:
        tag = 2 * float(max(cost.sum(), room_s.max()))
        cost, room_s = cost + tag, room_s + layer.counts * tag
    placed = np.full(layer.items, -1, dtype=np.int64)
    left = np.argsort(-cost, kind="stable")
    unfilled = int(random.integers(1, min(layer.devices, MOST_UNFILLED) + 1))
    for device in random.permutation(layer.devices)[: layer.devices - unfilled]:
        if not len(left) or cost[left[0]] > room_s[device]:
            continue
        longest, others = left[0], left[1:]
        placed[longest] = device
        offered = random.permutation(others)[:OFFERED]
        placed[offered[_heaviest(cost[offered], room_s[device] - cost[longest])]] = device
        left = others[placed[others] < 0]
    on_device = placed >= 0
    np.subtract.at(room_s, placed[on_device], cost[on_device])
    for item in left:
        device = int(room_s.argmax())
        placed[item] = device
        room_s[device] -= cost[item]
    return placed


def _heaviest(weights: Floats, limit: float) -> Ints:
    """The subset with the largest sum at most `limit`, which is not negative, as indices."""
    middle = len(weights) // 2
    low, high = _sums(weights[:middle]), _sums(weights[middle:])
    order = np.argsort(high, kind="stable")
    partner = np.searchsorted(high[order], limit - low, side="right") - 1
    sums = np.where(partner >= 0, low + high[order][partner], -1.0)
    best = int(sums.argmax())
    bits = best | int(order[partner[best]]) << middle
    return np.flatnonzero((bits >> np.arange(len(weights))) & 1)


def _sums(weights: Floats) -> Floats:
    """Sums of all subsets, `[2 ** items]`, in the order of their bits."""
    sums = np.zeros(1)
    for weight in weights:
        sums = np.concatenate((sums, sums + weight))
    return sums
