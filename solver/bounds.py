"""Lower bounds on a layer's makespan, in seconds on the true costs, each naming its proof.

Identical devices: the mean load; the largest item; pigeonhole over the kG + 1 largest items
(Graham 1969; Dell'Amico & Martello 1995); the copies that KV groups too large for one device must
make; and what a device must hold beside the largest item when counts are equal. Unlike devices:
the mean of the fastest. Several workloads: the weighted sum of their own bounds. Of these
the means alone hold for divided items, which have bounds of their own
(`solver.divide.divided_bounds`).
"""

from collections.abc import Callable, Sequence

import numpy as np

from solver.integers import SAFETY
from solver.problem import LayerProblem
from solver.shares import Floats
from solver.solution import Bound

STEPS = 50
"""Halvings of an interval: to 1e-15 of its width."""


def lifted(layer: LayerProblem, seconds: float) -> float:
    """The bound, or where all costs are whole numbers the next one, which is a bound too."""
    costs = (layer.distinct(each) for each in (layer.item_s, layer.group_s, layer.launch_s))
    if layer.divisible or layer.workloads > 1 or any((c != np.rint(c)).any() for c in costs):
        return seconds
    return float(np.ceil(SAFETY * seconds))


def quick_bound(layer: LayerProblem) -> Bound:
    """The best of the bounds that take microseconds."""
    return _best(layer, copies=False)


def lower_bound(layer: LayerProblem) -> Bound:
    """The best of the bounds that apply."""
    return _best(layer, copies=True)


def _best(layer: LayerProblem, *, copies: bool) -> Bound:
    each = [_of_one(layer.of_workload(w), copies) for w in range(layer.workloads)]
    bound = weighted(layer, each)
    return Bound(lifted(layer, bound.seconds), bound.proof)


def weighted(layer: LayerProblem, each: Sequence[Bound]) -> Bound:
    """The weighted sum of what bounds every workload's makespan alone."""
    if layer.workloads == 1:
        return each[0]
    proofs = ", ".join(dict.fromkeys(bound.proof for bound in each))
    seconds = float(layer.weights @ [bound.seconds for bound in each])
    return Bound(SAFETY * seconds, f"weighted sum of {proofs}")


def _of_one(layer: LayerProblem, copies: bool) -> Bound:
    if layer.divisible:
        return mean_load(layer) if layer.identical else fastest_devices(layer)
    bounds = [_largest(layer)]
    if layer.identical:
        bounds += [mean_load(layer), _pigeonhole(layer)]
        charged = not layer.single_groups and layer.charged
        if copies and (charged or layer.slots is not None):
            bounds.append(forced_copies(layer, bounds))
        if layer.equal_counts:
            bounds.append(_counts(layer))
    else:
        bounds.append(fastest_devices(layer))
    return max(bounds, key=lambda bound: bound.seconds)


def _largest(layer: LayerProblem) -> Bound:
    """Some device does the item that even its best device takes longest for."""
    charge_s = layer.distinct(layer.group_s)[0, layer.group_of]
    alone = layer.distinct(layer.item_s)[0] + charge_s + layer.distinct(layer.launch_s)[0]
    return Bound(float(alone.min(axis=1).max()), "largest item")


def mean_load(layer: LayerProblem) -> Bound:
    """All items and one charge a group, spread evenly."""
    total = layer.item_s[0, :, 0].sum() + layer.group_s[0, layer.present, 0].sum()
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


def _counts(layer: LayerProblem) -> Bound:
    """The device with the largest item holds at least so many more, the smallest there are."""
    ascending = np.sort(layer.item_s[0, :, 0])
    others = max(int(layer.counts.min()) - 1, 0)
    total = ascending[-1] + ascending[:others].sum() + layer.group_s[0, :, 0].min()
    return Bound(float(layer.launch_s[0, 0] + SAFETY * total), "largest item among equal counts")


def fastest_devices(layer: LayerProblem) -> Bound:
    """Every item and one charge a group where they take least, spread evenly."""
    charges = layer.group_s[0, layer.present].min(axis=1).sum()
    total = layer.item_s[0].min(axis=1).sum() + charges
    launch_s = layer.launch_s[0].min()
    return Bound(float(launch_s + SAFETY * total / layer.devices), "mean of fastest devices")


def forced_copies(layer: LayerProblem, known: Sequence[Bound]) -> Bound:
    """The mean load, when no device may hold more of a group or an item than the makespan allows.

    Of a makespan T a device has T - launch - charges for an item or its group, so that these need
    at least work / that many devices and pay their charges on each. The least T at which all of it
    fits on G devices, and in their slots, is found by bisection; the infeasible end is the bound.
    """
    launch = float(layer.launch_s[0, 0])
    present = layer.present
    charge = layer.group_s[0, present, 0]
    item_s, part_s = layer.item_s[0, :, 0], layer.part_s[0, :, 0]
    work = np.bincount(layer.group_of, item_s, layer.groups)
    group_work = np.asarray(work[present], dtype=np.float64)
    item_charge = layer.group_s[0, layer.group_of, 0] + part_s
    group_index = np.searchsorted(present, layer.group_of)

    def fits(level: float) -> bool:
        busy = level - launch
        group_room, item_room = busy - charge, busy - item_charge
        if (group_room <= 0).any() or (item_room <= 0).any():
            return False
        pieces = np.maximum(_whole_number(item_s - part_s, item_room), 1)
        devices = np.maximum(_whole_number(group_work, group_room), 1)
        np.maximum.at(devices, group_index, pieces)
        work = group_work.sum() + ((pieces - 1) * part_s).sum() + (devices * charge).sum()
        if layer.slots is not None and devices.sum() > layer.slots * layer.devices:
            return False
        return bool(work <= layer.devices * busy)

    low = max(bound.seconds for bound in known)
    high = launch + float((group_work + layer.devices * charge).sum() + (item_s + part_s).sum())
    return Bound(SAFETY * least_level(fits, low, high), "mean load with the copies it forces")


def _whole_number(work: Floats, room: Floats) -> Floats:
    return np.asarray(np.ceil(work / room - 1e-9), dtype=np.float64)


def least_level(fits: Callable[[float], bool], low: float, high: float) -> float:
    """The largest level known not to fit, or `low` where that one fits."""
    if fits(low):
        return low
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
        if high - low <= 1e-12 * high:
            break
    return low
