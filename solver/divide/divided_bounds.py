"""Lower bounds that hold for divided items too, in seconds on the true costs.

Identical devices: the mean load; the mean with the copies it forces, since a group or an item
that outgrows a device pays its charges on several. Any devices: the largest item on the best
`max_copies` of them, and the mean of the fastest. Several workloads: the weighted sum of their own
bounds. Unlike devices: the linear relaxation (`solver.divide.linear_program`), and the mean by
weight with the copies it forces.
"""

import numpy as np

from solver.bounds import (
    fastest_devices,
    forced_copies,
    least_level,
    mean_load,
    weighted,
)
from solver.deadline import Deadline
from solver.divide.components import Components, applies
from solver.divide.linear_program import relaxed_bound_s
from solver.divide.weighted_mean import NEAR, weighted_mean
from solver.integers import SAFETY
from solver.problem import LayerProblem
from solver.solution import Bound

RELAXED_PAIRS = 4096
"""Pairs of item and device type up to which the linear relaxation is solved."""


def divided_bound(layer: LayerProblem) -> Bound:
    """The best bound without the linear relaxation."""
    return combined(layer, bounds_of_workloads(layer))


def combined(layer: LayerProblem, each: list[Bound], deadline: Deadline | None = None) -> Bound:
    """The best bound, given those of `bounds_of_workloads`; the linear relaxation is solved where a
    deadline leaves time for it."""
    bound = weighted(layer, each)
    if deadline is None or layer.identical or deadline.left_s <= 0:
        return bound
    apart = [weighted_mean(layer.of_workload(w), deadline) for w in range(layer.workloads)]
    bound = max(bound, weighted(layer, apart), key=lambda b: b.seconds)
    if layer.workloads * layer.items * len(np.unique(layer.type_of)) > RELAXED_PAIRS:
        return bound
    least_s = np.array([least.seconds for least in each])
    seconds = SAFETY * relaxed_bound_s(layer, least_s, deadline)
    # What is better by the slack of weights alone is not what others can prove.
    better = seconds > bound.seconds * (1 + 2 * NEAR)
    return Bound(seconds, "linear relaxation") if better else bound


def bounds_of_workloads(layer: LayerProblem) -> list[Bound]:
    """What bounds the makespan of every workload, each as if it were the only one."""
    return [_of_one(layer.of_workload(w)) for w in range(layer.workloads)]


def _of_one(layer: LayerProblem) -> Bound:
    bounds = [_largest(layer)]
    if layer.identical:
        bounds.append(mean_load(layer))
        repeated = layer.distinct(layer.part_s).any()
        charged = layer.charged or repeated or layer.slots is not None
        if charged and (layer.max_copies is None or layer.max_copies > 1):
            bounds.append(forced_copies(layer, bounds))
            if applies(layer):
                bounds.append(_components(layer, bounds))
    else:
        bounds.append(fastest_devices(layer))
    return max(bounds, key=lambda bound: bound.seconds)


def _largest(layer: LayerProblem) -> Bound:
    """Within T a device does (T - charges) / work of an item, and at most `max_copies` devices."""
    copies = min(layer.max_copies or layer.devices, layer.devices)
    part_s = layer.distinct(layer.part_s)[0]
    work = layer.distinct(layer.item_s)[0] - part_s
    charge_s = layer.distinct(layer.group_s)[0, layer.group_of]
    charges = layer.distinct(layer.launch_s)[0] + charge_s + part_s
    alone = (charges + work).min(axis=1)
    if copies == 1:
        return Bound(SAFETY * float(alone.max()), "largest item")
    if layer.identical:
        seconds = float((charges + work / copies).max())
        return Bound(SAFETY * seconds, f"largest item on {copies} devices")
    work = np.maximum(work, 1e-300)

    def fits(level: float) -> bool:
        done = np.clip((level - charges) / work, 0, 1)
        best = np.partition(done, layer.devices - copies, axis=1)[:, layer.devices - copies :]
        return bool((best.sum(axis=1) >= 1 - 1e-12).all())

    seconds = least_level(fits, 0.0, float(alone.max()))
    return Bound(SAFETY * seconds, f"largest item on {copies} devices")


def _components(layer: LayerProblem, known: list[Bound]) -> Bound:
    """The best way to gather groups into components, each at the mean of its own devices."""
    low, _ = Components(layer).least_s(max(bound.seconds for bound in known))
    return Bound(SAFETY * low, "mean loads of components")
