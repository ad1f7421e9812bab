"""Descent by transfers: part of an item leaves a busy device for another while loads sharpen down.

The move neighbourhood of makespan local search with amounts in fractions: all of a device's part of
an item, or as much as evens the two devices out in one of the workloads. A transfer sees what the
receiver pays anew (the part, the group, the launch) and what the giver is rid of when nothing
stays. As in `solver.placement.exchange` a growing power of the loads stands in for their maximum.
"""

import numpy as np

from solver.placement.exact import Deadline
from solver.problem import LEAST_SHARE, Floats, LayerProblem, Shares

POWERS = (8, 64)
MOST_STEPS = 200
"""Per power."""

GIVERS = 4
"""The busiest devices of every workload may give."""

LEAST_GAIN = 1e-9


def transfers(layer: LayerProblem, start: Shares, deadline: Deadline) -> Shares:
    """The best shares met on the way down from `start`, never worse than it."""
    best, best_s = start, layer.objective(layer.loads_of_shares(start))
    current = start.copy()
    for power in POWERS:
        for _ in range(MOST_STEPS):
            if deadline.left_s <= 0 or not _step(layer, current, power):
                break
            reached_s = layer.objective(layer.loads_of_shares(current))
            if reached_s < best_s:
                best, best_s = current.copy(), reached_s
    return best


def _step(layer: LayerProblem, shares: Shares, power: int) -> bool:
    """Apply the best transfer in place; False when none lowers the sharpened loads."""
    loads = layer.loads_of_shares(shares)
    busiest = np.unique(np.argsort(-loads, axis=1)[:, :GIVERS])
    item, near = np.nonzero(shares[:, busiest])
    giver = busiest[near]
    group = layer.group_of[item]
    has = shares > 0
    held = layer.members @ has  # [groups, devices]
    launched = has.any(axis=0)

    # Charges [workloads, moves] of the giver's leaving, [workloads, moves, devices] of arriving.
    last_of_group = held[group, giver] == 1
    last_of_all = has.sum(axis=0)[giver] == 1
    relief = (
        layer.part_s[:, item, giver]
        + np.where(last_of_group, layer.group_s[:, group, giver], 0.0)
        + np.where(last_of_all, layer.launch_s[:, giver], 0.0)
    )
    arrival = (
        np.where(has[item], 0.0, layer.part_s[:, item])
        + np.where(held[group] > 0, 0.0, layer.group_s[:, group])
        + np.where(launched, 0.0, layer.launch_s)[:, None]
    )
    work = layer.item_s - layer.part_s
    given, taken = work[:, item, giver][..., None], work[:, item]

    share = shares[item, giver][:, None]
    here = loads[:, giver][..., None]
    even = (here - loads[:, None] - arrival) / np.maximum(given + taken, 1e-300)
    amounts = np.concatenate([np.broadcast_to(share, even.shape[1:])[None], even])
    all_of_it = amounts >= share - LEAST_SHARE
    amounts = np.where(all_of_it, share, amounts)
    full = layer.max_copies is not None and (
        (has.sum(axis=1)[item] >= layer.max_copies)[:, None] & ~has[item] & ~all_of_it
    )
    barred = (amounts <= LEAST_SHARE) | full
    barred[:, np.arange(len(item)), giver] = True

    gain = np.zeros(amounts.shape)
    for w, peak in enumerate(loads.max(axis=1)):
        after_here = here[w] - amounts * given[w] - np.where(all_of_it, relief[w][:, None], 0.0)
        after_there = loads[w] + arrival[w] + amounts * taken[w]
        before = (loads[w] / peak) ** power
        total = before.sum()
        changed = _sharpened(after_here, peak, power) + _sharpened(after_there, peak, power)
        after = np.maximum(total - before[giver][:, None] - before + changed, 0)
        gain += layer.weights[w] * peak * (total ** (1 / power) - after ** (1 / power))
    gain[barred] = -np.inf
    best = np.unravel_index(int(gain.argmax()), gain.shape)
    if gain[best] <= LEAST_GAIN * loads.max():
        return False
    _, move, taker = best
    amount = amounts[best]
    shares[item[move], giver[move]] -= amount
    shares[item[move], taker] += amount
    if all_of_it[best]:
        shares[item[move], giver[move]] = 0.0
    return True


def _sharpened(loads: Floats, peak: float, power: int) -> Floats:
    return np.asarray(np.maximum(loads / peak, 0) ** power, dtype=np.float64)
