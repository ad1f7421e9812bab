"""Lower bounds on a layer's makespan, in seconds on the true costs, each naming its proof.

Identical devices: the mean load; the largest item; pigeonhole over the kG + 1 largest items
(Graham 1969; Dell'Amico & Martello 1995); the copies that KV groups too large for one device must
make; and what a device must hold beside the largest item when counts are equal. Unlike devices:
the linear relaxation.
"""

from dataclasses import dataclass

import numpy as np

from solver.placement.ilp import relaxed_makespan_s
from solver.problem import LayerProblem

SAFETY = 1 - 1e-9
"""A bound that comes out of floating-point search is lowered by this much to stay a bound."""


RELAXED_PAIRS = 1024
"""Pairs of item and device up to which the linear relaxation is solved: some tens of ms."""


@dataclass(frozen=True)
class Bound:
    """No placement of the layer has a smaller makespan than `seconds`; `proof` says why."""

    seconds: float
    proof: str


def lower_bound(layer: LayerProblem) -> Bound:
    """The best of the bounds that apply."""
    bounds = [_largest(layer)]
    if layer.identical:
        bounds += [_mean(layer), _pigeonhole(layer)]
        if not layer.single_groups:
            bounds.append(_copies(layer))
        if layer.equal_counts:
            bounds.append(_counts(layer))
    else:
        bounds.append(_fastest_devices(layer))
        if layer.items * layer.devices <= RELAXED_PAIRS:
            bounds.append(_linear_relaxation(layer))
    return max(bounds, key=lambda bound: bound.seconds)


def _largest(layer: LayerProblem) -> Bound:
    """Some device does the item that even its best device takes longest for."""
    alone = layer.item_with_charge_s() + layer.launch_s
    return Bound(float(alone.min(axis=1).max()), "largest item")


def _mean(layer: LayerProblem) -> Bound:
    """All items and one charge a group, spread evenly."""
    total = layer.item_s[:, 0].sum() + layer.group_s[:, 0][np.unique(layer.group_of)].sum()
    return Bound(float(layer.launch_s[0] + SAFETY * total / layer.devices), "mean load")


def _pigeonhole(layer: LayerProblem) -> Bound:
    """Among the kG + 1 largest items some device has k + 1, at least the k + 1 smallest of them."""
    largest_first = np.sort(layer.item_s[:, 0])[::-1]
    charge = layer.group_s[:, 0].min()
    best = 0.0
    for k in range(1, (layer.items - 1) // layer.devices + 1):
        last = k * layer.devices + 1
        best = max(best, float(largest_first[last - k - 1 : last].sum()))
    return Bound(float(layer.launch_s[0] + charge + SAFETY * best) if best else 0.0, "pigeonhole")


def _copies(layer: LayerProblem) -> Bound:
    """The mean load, when no device may hold more of a group than the makespan allows.

    In a makespan T a device has room for T - launch - charge of a group, so that the group needs
    at least work / that many devices, and pays its charge on each. The least T at which all of
    this fits on G devices is found by bisection; the infeasible end is the bound.
    """
    charge = layer.group_s[:, 0]
    work = np.bincount(layer.group_of, weights=layer.item_s[:, 0], minlength=len(charge))
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
    return Bound(float(layer.launch_s[0] + SAFETY * low), "mean load with the copies it forces")


def _counts(layer: LayerProblem) -> Bound:
    """The device with the largest item holds at least so many more, the smallest there are."""
    ascending = np.sort(layer.item_s[:, 0])
    others = max(int(layer.counts.min()) - 1, 0)
    total = ascending[-1] + ascending[:others].sum() + layer.group_s[:, 0].min()
    return Bound(float(layer.launch_s[0] + SAFETY * total), "largest item among equal counts")


def _fastest_devices(layer: LayerProblem) -> Bound:
    """Every item and one charge a group where they take least, spread evenly."""
    charges = layer.group_s[np.unique(layer.group_of)].min(axis=1).sum()
    total = layer.item_s.min(axis=1).sum() + charges
    launch_s = layer.launch_s.min()
    return Bound(float(launch_s + SAFETY * total / layer.devices), "mean of fastest devices")


def _linear_relaxation(layer: LayerProblem) -> Bound:
    """The integer program with items in fractions."""
    return Bound(relaxed_makespan_s(layer), "linear relaxation")
