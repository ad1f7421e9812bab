"""Lower bounds on a layer's makespan, in seconds on the true costs, each naming its proof.

Identical devices: the mean load; the largest item; pigeonhole over the kG + 1 largest items
(Graham 1969; Dell'Amico & Martello 1995); the copies that KV groups too large for one device must
make; and what a device must hold beside the largest item when counts are equal. Unlike devices:
the mean of the fastest. Several workloads: the weighted sum of their own bounds. Of these
the means alone hold for divided items, which have bounds of their own (`solver.divide.bounds`).
"""

import numpy as np

from solver.problem import LayerProblem
from solver.solution import Bound

SAFETY = 1 - 1e-9
"""A bound that comes out of floating-point search is lowered by this much to stay a bound."""


def quick_bound(layer: LayerProblem) -> Bound:
    """The best of the bounds that take microseconds."""
    return _best(layer, copies=False)


def lower_bound(layer: LayerProblem) -> Bound:
    """The best of the bounds that apply."""
    return _best(layer, copies=True)


def _best(layer: LayerProblem, *, copies: bool) -> Bound:
    each = [_of_one(layer.of_workload(w), copies) for w in range(layer.workloads)]
    if layer.workloads == 1:
        return each[0]
    proofs = ", ".join(dict.fromkeys(bound.proof for bound in each))
    seconds = float(layer.weights @ [bound.seconds for bound in each])
    return Bound(SAFETY * seconds, f"weighted sum of {proofs}")


def _of_one(layer: LayerProblem, copies: bool) -> Bound:
    if layer.divisible:
        return _mean(layer) if layer.identical else _fastest_devices(layer)
    bounds = [_largest(layer)]
    if layer.identical:
        bounds += [_mean(layer), _pigeonhole(layer)]
        if copies and not layer.single_groups and layer.group_s.any():
            bounds.append(_copies(layer))
        if layer.equal_counts:
            bounds.append(_counts(layer))
    else:
        bounds.append(_fastest_devices(layer))
    return max(bounds, key=lambda bound: bound.seconds)


def _largest(layer: LayerProblem) -> Bound:
    """Some device does the item that even its best device takes longest for."""
    alone = layer.item_with_charge_s()[0] + layer.launch_s[0]
    return Bound(float(alone.min(axis=1).max()), "largest item")


def _mean(layer: LayerProblem) -> Bound:
    """All items and one charge a group, spread evenly."""
    total = layer.item_s[0, :, 0].sum() + layer.group_s[0, np.unique(layer.group_of), 0].sum()
    return Bound(float(layer.launch_s[0, 0] + SAFETY * total / layer.devices), "mean load")


def _pigeonhole(layer: LayerProblem) -> Bound:
    """Among the kG + 1 largest items some device has k + 1, at least the k + 1 smallest of them.

    With equal counts every device holds so many items of at least the least cost: what each costs
    beyond that is counted, and the rest is the same everywhere.
    """
    cost = layer.item_s[0, :, 0]
    if layer.single_groups:
        cost = cost + layer.group_s[0, layer.group_of, 0]
        charge = 0.0
    else:
        charge = float(layer.group_s[0, :, 0].min())
    common = float(cost.min()) if layer.equal_counts else 0.0
    falling = np.cumsum(np.sort(cost - common)[::-1])
    k = np.arange(1, (layer.items - 1) // layer.devices + 1)
    if not len(k):
        return Bound(0.0, "pigeonhole")
    last = k * layer.devices
    best = float((falling[last] - falling[last - k - 1]).max())
    base = layer.launch_s[0, 0] + charge + common * int(layer.counts.min())
    return Bound(float(SAFETY * (base + best)), "pigeonhole")


def _copies(layer: LayerProblem) -> Bound:
    """The mean load, when no device may hold more of a group than the makespan allows.

    In a makespan T a device has room for T - launch - charge of a group, so that the group needs
    at least work / that many devices, and pays its charge on each. The least T at which all of
    this fits on G devices is found by bisection; the infeasible end is the bound.
    """
    charge = layer.group_s[0, :, 0]
    work = layer.members @ layer.item_s[0, :, 0]
    charge, work = charge[work > 0], work[work > 0]

    def fits(busy: float) -> bool:
        room = busy - charge
        if (room <= 0).any():
            return False
        devices = np.maximum(np.ceil(work / room - 1e-9), 1)
        return bool((work + devices * charge).sum() <= layer.devices * busy)

    low, high = 0.0, float((work + layer.devices * charge).sum())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    launch_s = float(layer.launch_s[0, 0])
    return Bound(launch_s + SAFETY * low, "mean load with the copies it forces")


def _counts(layer: LayerProblem) -> Bound:
    """The device with the largest item holds at least so many more, the smallest there are."""
    ascending = np.sort(layer.item_s[0, :, 0])
    others = max(int(layer.counts.min()) - 1, 0)
    total = ascending[-1] + ascending[:others].sum() + layer.group_s[0, :, 0].min()
    return Bound(float(layer.launch_s[0, 0] + SAFETY * total), "largest item among equal counts")


def _fastest_devices(layer: LayerProblem) -> Bound:
    """Every item and one charge a group where they take least, spread evenly."""
    charges = layer.group_s[0, np.unique(layer.group_of)].min(axis=1).sum()
    total = layer.item_s[0].min(axis=1).sum() + charges
    launch_s = layer.launch_s[0].min()
    return Bound(float(launch_s + SAFETY * total / layer.devices), "mean of fastest devices")
