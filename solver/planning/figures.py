"""What a placement amounts to: idle share, imbalance, copies, bytes, stock compatibility."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from profiles.architecture import Architecture
from profiles.cost.work import Workload, kv_group_bytes
from solver.problem import Floats, PlacementProblem
from solver.request import PlanRequest

Present = NDArray[np.bool_]
"""Which KV groups are on which device, `[layers, kv_heads, devices]`."""


def bubble_ratio(loads: Floats, makespans: Floats) -> float:
    """Idle share of device time, for loads [layers, devices] and makespans [layers].

    Every layer ends in a barrier. Both are weighted sums where there are several workloads.
    """
    return float(max(0.0, 1 - loads.sum() / (loads.shape[1] * makespans.sum())))


def imbalance(loads: Floats, makespans: Floats, *, identical: bool) -> float | None:
    """The paper's I: plan makespan over summed mean loads; undefined for unlike devices."""
    return float(makespans.sum() / loads.mean(axis=1).sum()) if identical else None


def presence(shares: Floats, kv_heads: int) -> Present:
    """Which KV groups are where, for shares [layers, heads, devices] of the heads."""
    layers, heads, devices = shares.shape
    return np.asarray(
        (shares > 0).reshape(layers, kv_heads, heads // kv_heads, devices).any(axis=2)
    )


def kv_copies(present: Present) -> list[int]:
    """Per layer: (KV group, device) pairs beyond one a group."""
    return [int(n) for n in present.sum(axis=(1, 2)) - present.shape[1]]


def divisions(shares: Floats) -> list[int]:
    """Per layer: parts of heads beyond one a head."""
    return [int(n) for n in (shares > 0).sum(axis=(1, 2)) - shares.shape[1]]


def kv_bytes(
    present: Present, architecture: Architecture, workload: Workload, slots: int | None
) -> list[int]:
    """Per device: K/V of all that the layers reach; of all slots where devices have them."""
    held = present.sum(axis=1)
    if slots is not None:
        held = np.full_like(held, slots)
    return [int(n) for n in kv_group_bytes(architecture, workload) @ held]


def stock_compatible(shares: Floats, kv_heads: int, slots: int | None) -> tuple[bool, str]:
    """Whether stock tensor parallelism can run it: slots, or whole KV groups in equal counts.

    With more devices than KV heads: each group on as many devices, its query heads in equal counts.
    """
    present = presence(shares, kv_heads)
    if slots is not None:
        return True, f"KV groups, copies and padding in {slots} slots a device in every layer"
    if _copied_evenly(shares, present):
        copies, heads = shares.shape[2] // kv_heads, shares.shape[1] // shares.shape[2]
        return True, f"KV groups on {copies} devices each, {heads} query heads a device"
    split = np.argwhere(present.sum(axis=2) > 1)
    if len(split):
        layer, group = split[0]
        count = int(present[layer, group].sum())
        return False, f"KV group {group} of layer {layer} is split over {count} devices"
    counts = present.sum(axis=1)
    uneven = np.flatnonzero(counts.max(axis=1) != counts.min(axis=1))
    if len(uneven):
        layer = int(uneven[0])
        low, high = int(counts[layer].min()), int(counts[layer].max())
        return False, f"layer {layer} has {low} to {high} KV groups a device, not equal counts"
    return True, f"whole KV groups, {int(counts[0, 0])} a device in every layer"


def _copied_evenly(shares: Floats, present: Present) -> bool:
    """Whether each KV group is on its number of devices, which have equal numbers of its heads."""
    _, heads, devices = shares.shape
    groups = present.shape[1]
    if devices % groups or heads % devices or (shares.max(axis=2) < 1).any():
        return False
    each = (shares > 0).sum(axis=1) == heads // devices
    return bool(devices > groups and each.all() and (present.sum(axis=1) == 1).all())


def objective_s(request: PlanRequest, problem: PlacementProblem, loads: Sequence[Floats]) -> float:
    """What a request minimises, for every layer's loads [workloads, devices]."""
    each_s = np.sum([load.max(axis=1) for load in loads], axis=0)
    return float(each_s.max() if request.objective == "worst" else problem.weights @ each_s)
