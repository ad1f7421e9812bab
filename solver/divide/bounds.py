"""Lower bounds that hold for divided items too, in seconds on the true costs.

Identical devices: the mean load; the mean with the copies it forces, since a group or an item
that outgrows a device pays its charges on several. Any devices: the largest item on the best
`max_copies` of them, and the mean of the fastest. Several workloads: the weighted sum of their own
bounds. Unlike devices: the linear relaxation (`solver.divide.program`).
"""

from collections.abc import Callable

import numpy as np

from solver.divide.components import Components, applies
from solver.divide.program import relaxed
from solver.placement.exact import Deadline
from solver.problem import Floats, LayerProblem
from solver.solution import Bound

SAFETY = 1 - 1e-9
"""A bound that comes out of floating-point search is lowered by this much to stay a bound."""

RELAXED_PAIRS = 1024
"""Pairs of item and device up to which the linear relaxation is solved: some tens of ms."""

STEPS = 50
"""Halvings of an interval: to 1e-15 of its width."""


def divided_bound(layer: LayerProblem, deadline: Deadline | None = None) -> Bound:
    """The best bound; the linear relaxation is solved where a deadline leaves time for it."""
    return combined(layer, bounds_of_workloads(layer), deadline)


def combined(layer: LayerProblem, each: list[Bound], deadline: Deadline | None = None) -> Bound:
    """The best bound, given those of `bounds_of_workloads`."""
    bound = _weighted(layer, each)
    if deadline is None or layer.identical or deadline.left_s <= 0:
        return bound
    if layer.workloads * layer.items * layer.devices > RELAXED_PAIRS:
        return bound
    _, seconds = relaxed(layer, np.array([least.seconds for least in each]), deadline)
    return max(bound, Bound(SAFETY * seconds, "linear relaxation"), key=lambda b: b.seconds)


def bounds_of_workloads(layer: LayerProblem) -> list[Bound]:
    """What bounds the makespan of every workload, each as if it were the only one."""
    return [_of_one(layer.of_workload(w)) for w in range(layer.workloads)]


def _weighted(layer: LayerProblem, each: list[Bound]) -> Bound:
    if layer.workloads == 1:
        return each[0]
    proofs = ", ".join(dict.fromkeys(bound.proof for bound in each))
    seconds = float(layer.weights @ [bound.seconds for bound in each])
    return Bound(SAFETY * seconds, f"weighted sum of {proofs}")


def _of_one(layer: LayerProblem) -> Bound:
    bounds = [_largest(layer)]
    if layer.identical:
        bounds.append(_mean(layer))
        charged = layer.group_s.any() or layer.part_s.any()
        if charged and (layer.max_copies is None or layer.max_copies > 1):
            bounds.append(_forced_copies(layer, bounds))
            if applies(layer):
                bounds.append(_components(layer, bounds))
    else:
        bounds.append(_fastest_devices(layer))
    return max(bounds, key=lambda bound: bound.seconds)


def _largest(layer: LayerProblem) -> Bound:
    """Within T a device does (T - charges) / work of an item, and at most `max_copies` devices."""
    copies = min(layer.max_copies or layer.devices, layer.devices)
    item_s, part_s = layer.item_s[0], layer.part_s[0]
    charges = layer.launch_s[0] + layer.group_s[0, layer.group_of] + part_s
    alone = (charges + item_s - part_s).min(axis=1)
    if copies == 1:
        return Bound(SAFETY * float(alone.max()), "largest item")
    if layer.identical:
        seconds = float((charges + (item_s - part_s) / copies)[:, 0].max())
        return Bound(SAFETY * seconds, f"largest item on {copies} devices")
    work = np.maximum(item_s - part_s, 1e-300)

    def fits(level: float) -> bool:
        done = np.clip((level - charges) / work, 0, 1)
        best = np.partition(done, layer.devices - copies, axis=1)[:, layer.devices - copies :]
        return bool((best.sum(axis=1) >= 1 - 1e-12).all())

    seconds = _least(fits, 0.0, float(alone.max()))
    return Bound(SAFETY * seconds, f"largest item on {copies} devices")


def _mean(layer: LayerProblem) -> Bound:
    """All items and one charge a group, spread evenly."""
    total = layer.item_s[0, :, 0].sum() + layer.group_s[0, np.unique(layer.group_of), 0].sum()
    return Bound(SAFETY * float(layer.launch_s[0, 0] + total / layer.devices), "mean load")


def _forced_copies(layer: LayerProblem, known: list[Bound]) -> Bound:
    """The mean load, when no device may hold more of a group or an item than the makespan allows.

    Of a makespan T a device has T - launch - charges for an item or its group, so that these need
    at least work / that many devices and pay their charges on each. The least T at which all of it
    fits on G devices is found by bisection; the infeasible end is the bound.
    """
    launch = float(layer.launch_s[0, 0])
    present = np.unique(layer.group_of)
    charge = layer.group_s[0, present, 0]
    item_s, part_s = layer.item_s[0, :, 0], layer.part_s[0, :, 0]
    group_work = layer.members[present] @ item_s
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
        return bool(work <= layer.devices * busy)

    low = max(bound.seconds for bound in known)
    high = launch + float((group_work + layer.devices * charge).sum() + (item_s + part_s).sum())
    return Bound(SAFETY * _least(fits, low, high), "mean load with the copies it forces")


def _components(layer: LayerProblem, known: list[Bound]) -> Bound:
    """The best way to gather groups into components, each at the mean of its own devices."""
    low, _ = Components(layer).least_s(max(bound.seconds for bound in known))
    return Bound(SAFETY * low, "mean loads of components")


def _whole_number(work: Floats, room: Floats) -> Floats:
    return np.asarray(np.ceil(work / room - 1e-9), dtype=np.float64)


def _fastest_devices(layer: LayerProblem) -> Bound:
    """Every item and one charge a group where they take least, spread evenly."""
    charges = layer.group_s[0, np.unique(layer.group_of)].min(axis=1).sum()
    total = layer.item_s[0].min(axis=1).sum() + charges
    launch_s = layer.launch_s[0].min()
    return Bound(SAFETY * float(launch_s + total / layer.devices), "mean of fastest devices")


def _least(fits: Callable[[float], bool], low: float, high: float) -> float:
    """The largest level known not to fit, or `low` where that one fits."""
    if fits(low):
        return low
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
        if high - low <= 1e-12 * high:
            break
    return low
