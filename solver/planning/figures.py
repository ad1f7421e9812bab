"""What a placement amounts to: idle share, imbalance, copies, bytes, stock compatibility."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from profiles.architecture import Architecture
from profiles.cost.work import Workload, kv_group_bytes
from solver.problem import PlacementProblem
from solver.request import PlanRequest
from solver.shares import Floats, Ints, Shares


def bubble_ratio(loads: Floats, makespans: Floats) -> float:
    """Idle share of device time, for loads [layers, devices] and makespans [layers].

    Every layer ends in a barrier. Both are weighted sums where there are several workloads.
    """
    return float(max(0.0, 1 - loads.sum() / (loads.shape[1] * makespans.sum())))


def imbalance(loads: Floats, makespans: Floats, *, identical: bool) -> float | None:
    """The paper's I: plan makespan over summed mean loads; undefined for unlike devices."""
    return float(makespans.sum() / loads.mean(axis=1).sum()) if identical else None


@dataclass(frozen=True, eq=False)
class Present:
    """Which KV groups are on which device in a layer: pairs `[pairs]`, by group."""

    group: Ints
    device: Ints
    groups: int
    devices: int

    @classmethod
    def of(cls, shares: Shares, kv_heads: int) -> Self:
        """Of the heads' shares of a layer."""
        group_of = np.arange(shares.items) // (shares.items // kv_heads)
        return cls(*shares.of_groups(group_of), kv_heads, shares.devices)

    def copies(self) -> Ints:
        """Devices of every group, `[groups]`."""
        return np.bincount(self.group, minlength=self.groups)

    def held(self) -> Ints:
        """Groups on every device, `[devices]`."""
        return np.bincount(self.device, minlength=self.devices)


def kv_copies(present: Sequence[Present]) -> list[int]:
    """Per layer: (KV group, device) pairs beyond one a group."""
    return [len(own.group) - own.groups for own in present]


def divisions(shares: Sequence[Shares]) -> list[int]:
    """Per layer: parts of heads beyond one a head."""
    return [len(own.item) - own.items for own in shares]


def kv_bytes(
    present: Sequence[Present], architecture: Architecture, workload: Workload, slots: int | None
) -> list[int]:
    """Per device: K/V of all that the layers reach; of all slots where devices have them."""
    held = np.stack([own.held() for own in present])
    if slots is not None:
        held = np.full_like(held, slots)
    return [int(n) for n in kv_group_bytes(architecture, workload) @ held]


def stock_compatible(
    shares: Sequence[Shares], present: Sequence[Present], slots: int | None
) -> tuple[bool, str]:
    """Whether stock tensor parallelism can run it: slots, or whole KV groups in equal counts.

    With more devices than KV heads: each group on as many devices, its query heads in equal counts.
    """
    if slots is not None:
        return True, f"KV groups, copies and padding in {slots} slots a device in every layer"
    groups, devices, heads = present[0].groups, present[0].devices, shares[0].items
    if all(_copied_evenly(*pair) for pair in zip(shares, present, strict=True)):
        copies = devices // groups
        return True, f"KV groups on {copies} devices each, {heads // devices} query heads a device"
    for layer, own in enumerate(present):
        split = np.flatnonzero(own.copies() > 1)
        if len(split):
            count = int(own.copies()[split[0]])
            return False, f"KV group {split[0]} of layer {layer} is split over {count} devices"
    for layer, own in enumerate(present):
        low, high = int(own.held().min()), int(own.held().max())
        if low != high:
            return False, f"layer {layer} has {low} to {high} KV groups a device, not equal counts"
    return True, f"whole KV groups, {int(present[0].held()[0])} a device in every layer"


def _copied_evenly(shares: Shares, present: Present) -> bool:
    """Whether each KV group is on its number of devices, which have equal numbers of its heads."""
    heads, devices = shares.items, shares.devices
    if devices <= present.groups or devices % present.groups or heads % devices or shares.divided:
        return False
    each = np.bincount(shares.device, minlength=devices)
    return bool((each == heads // devices).all() and (present.held() == 1).all())


def objective_s(request: PlanRequest, problem: PlacementProblem, loads: Floats) -> float:
    """What a request minimises, for loads `[workloads, layers, devices]`."""
    each_s = loads.max(axis=2).sum(axis=1)
    return float(each_s.max() if request.objective == "worst" else problem.weights @ each_s)
