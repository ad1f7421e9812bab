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
    [bound] = quick_bounds([layer])
    return bound


def quick_bounds(layers: Sequence[LayerProblem]) -> list[Bound]:
    """The same of all layers of a problem; calling numpy takes longer than what it does of one."""
    return _best(layers, copies=False)


def lower_bound(layer: LayerProblem) -> Bound:
    """The best of the bounds that apply."""
    [bound] = _best([layer], copies=True)
    return bound


def _best(layers: Sequence[LayerProblem], *, copies: bool) -> list[Bound]:
    workloads = range(layers[0].workloads)
    of_each = [_of_one([layer.of_workload(w) for layer in layers], copies) for w in workloads]
    best = []
    for layer, *each in zip(layers, *of_each, strict=True):
        bound = weighted(layer, each)
        best.append(Bound(lifted(layer, bound.seconds), bound.proof))
    return best


def weighted(layer: LayerProblem, each: Sequence[Bound]) -> Bound:
    """The weighted sum of what bounds every workload's makespan alone."""
    if layer.workloads == 1:
        return each[0]
    proofs = ", ".join(dict.fromkeys(bound.proof for bound in each))
    seconds = float(layer.weights @ [bound.seconds for bound in each])
    return Bound(SAFETY * seconds, f"weighted sum of {proofs}")


def _of_one(layers: Sequence[LayerProblem], copies: bool) -> list[Bound]:
    """The best bound of every layer, of one workload."""
    first = layers[0]
    if not first.identical:
        fastest = [fastest_devices(layer) for layer in layers]
        if first.divisible:
            return fastest
        return [_larger([_largest(layer), own]) for layer, own in zip(layers, fastest, strict=True)]
    alike = _Alike(layers)
    if first.divisible:
        return alike.mean_load()
    proved = [alike.largest(), alike.mean_load(), alike.pigeonhole()]
    if copies:
        known = [list(own) for own in zip(*proved, strict=True)]
        proved.append([_forced(*each) for each in zip(layers, known, strict=True)])
    if first.equal_counts:
        proved.append(alike.counts())
    return [_larger(own) for own in zip(*proved, strict=True)]


def _larger(bounds: Sequence[Bound]) -> Bound:
    return max(bounds, key=lambda bound: bound.seconds)


def _largest(layer: LayerProblem) -> Bound:
    """Some device does the item that even its best device takes longest for."""
    alone = layer.item_s[0] + layer.group_s[0, layer.group_of] + layer.launch_s[0]
    return Bound(float(alone.min(axis=1).max()), "largest item")


def mean_load(layer: LayerProblem) -> Bound:
    """All items and one charge a group, spread evenly."""
    [bound] = _Alike([layer]).mean_load()
    return bound


class _Alike:
    """The layers of a problem on identical devices, of one workload: bounds of each.

    item_s [layers, items], group_s [layers, groups], launch_s [layers]; the rest is all layers'.
    """

    def __init__(self, layers: Sequence[LayerProblem]) -> None:
        self._rules = layers[0]
        self._item_s = np.stack([layer.item_s[0, :, 0] for layer in layers])
        self._group_s = np.stack([layer.group_s[0, :, 0] for layer in layers])
        self._launch_s = np.stack([layer.launch_s[0, 0] for layer in layers])

    def largest(self) -> list[Bound]:
        """Some device does the largest item."""
        alone = self._item_s + self._group_s[:, self._rules.group_of] + self._launch_s[:, None]
        return _bounds(alone.max(axis=1), "largest item")

    def mean_load(self) -> list[Bound]:
        """All items and one charge a group, spread evenly."""
        charges = np.take(self._group_s, self._rules.present, axis=1)
        total = self._item_s.sum(axis=1) + charges.sum(axis=1)
        return _bounds(self._launch_s + SAFETY * total / self._rules.devices, "mean load")

    def pigeonhole(self) -> list[Bound]:
        """Among the kG + 1 largest items some device has k + 1, at least the k + 1 smallest of
        them.

        With equal counts every device holds so many items of at least the least cost: what each
        costs beyond that is counted, and the rest is the same everywhere.
        """
        rules, cost = self._rules, self._item_s
        if rules.single_groups:
            cost, charge = cost + self._group_s[:, rules.group_of], np.zeros(len(cost))
        else:
            charge = self._group_s.min(axis=1)
        common = cost.min(axis=1) if rules.equal_counts else np.zeros(len(cost))
        falling = np.cumsum(np.sort(cost - common[:, None], axis=1)[:, ::-1], axis=1)
        k = np.arange(1, (rules.items - 1) // rules.devices + 1)
        if not len(k):
            return _bounds(np.zeros(len(cost)), "pigeonhole")
        last = k * rules.devices
        best = (falling[:, last] - falling[:, last - k - 1]).max(axis=1)
        base = self._launch_s + charge + common * int(rules.counts.min())
        return _bounds(SAFETY * (base + best), "pigeonhole")

    def counts(self) -> list[Bound]:
        """The device with the largest item holds at least so many more, the smallest there are."""
        ascending = np.sort(self._item_s, axis=1)
        others = max(int(self._rules.counts.min()) - 1, 0)
        total = ascending[:, -1] + ascending[:, :others].sum(axis=1) + self._group_s.min(axis=1)
        return _bounds(self._launch_s + SAFETY * total, "largest item among equal counts")


def _bounds(seconds: Floats, proof: str) -> list[Bound]:
    return [Bound(each, proof) for each in seconds.tolist()]


def fastest_devices(layer: LayerProblem) -> Bound:
    """Every item and one charge a group where they take least, spread evenly."""
    charges = layer.group_s[0, layer.present].min(axis=1).sum()
    total = layer.item_s[0].min(axis=1).sum() + charges
    launch_s = layer.launch_s[0].min()
    return Bound(float(launch_s + SAFETY * total / layer.devices), "mean of fastest devices")


def _forced(layer: LayerProblem, known: Sequence[Bound]) -> Bound:
    """What the copies force, where there are charges for them or no room; else what is known."""
    charged = not layer.single_groups and layer.charged
    return forced_copies(layer, known) if charged or layer.slots is not None else known[0]


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
