"""The makespan problem: items (heads or KV groups) on devices, with a charge per group present.

All arrays are in seconds. A device's load in a layer is
`launch_s + sum of its items + one group_s for every KV group present`, and 0 when it has nothing.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Assignment = Ints
"""Device of every item of one layer, `[items]`."""

Unit = Literal["head", "kv_group"]


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """One layer: place every item on one device so that the largest load is least.

    item_s   [items, devices]   the whole item on that device
    group_s  [groups, devices]  the charge for a group's presence there
    launch_s [devices]          paid by a device that has any item
    group_of [items]            the KV group an item belongs to
    type_of  [devices]          devices with equal numbers are identical
    """

    item_s: Floats
    group_s: Floats
    launch_s: Floats
    group_of: Ints
    type_of: Ints
    equal_counts: bool = False

    @property
    def items(self) -> int:
        return int(self.item_s.shape[0])

    @property
    def devices(self) -> int:
        return int(self.item_s.shape[1])

    @property
    def identical(self) -> bool:
        """Whether all devices are of one type."""
        return bool((self.type_of == self.type_of[0]).all())

    @cached_property
    def counts(self) -> Ints:
        """Items a device gets where counts are equal, `[devices]`: at most one apart, larger first.

        The shares that stock tensor parallelism gives where G does not divide the items.
        """
        small, larger = divmod(self.items, self.devices)
        return np.array([small + (d < larger) for d in range(self.devices)], dtype=np.int64)

    @property
    def single_groups(self) -> bool:
        """Whether every group has one item, so that its charge simply rides with the item."""
        return len(np.unique(self.group_of)) == self.items

    def item_with_charge_s(self) -> Floats:
        """Seconds of an item alone on a device, its group's charge included, [items, devices]."""
        return np.asarray(self.item_s + self.group_s[self.group_of], dtype=np.float64)

    def loads(self, assignment: Assignment) -> Floats:
        """Seconds of every device, `[devices]`."""
        placed = np.arange(self.items)
        weights = self.item_s[placed, assignment]
        loads = np.bincount(assignment, weights=weights, minlength=self.devices)
        present = np.zeros(self.group_s.shape, dtype=bool)
        present[self.group_of, assignment] = True
        charges = np.where(present, self.group_s, 0.0).sum(axis=0)
        launches = np.where(present.any(axis=0), self.launch_s, 0.0)
        return np.asarray(loads + charges + launches, dtype=np.float64)

    def makespan(self, assignment: Assignment) -> float:
        """The largest load, seconds."""
        return float(self.loads(assignment).max())

    def allows(self, assignment: Assignment) -> bool:
        """Whether an assignment obeys the counts."""
        if not self.equal_counts:
            return True
        return bool((np.bincount(assignment, minlength=self.devices) == self.counts).all())

    def by_group(self) -> "LayerProblem":
        """The same layer with whole KV groups as items."""
        groups = self.group_s.shape[0]
        item_s = np.zeros((groups, self.devices))
        np.add.at(item_s, self.group_of, self.item_s)
        return replace(self, item_s=item_s, group_of=np.arange(groups, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class PlacementProblem:
    """All layers of a model on a set of devices.

    head_s [layers, heads, types], group_s [layers, kv_heads, types], launch_s [types],
    type_of [devices]; `unit` and `equal_counts` are the rules a placement obeys.
    """

    head_s: Floats
    group_s: Floats
    launch_s: Floats
    type_of: Ints
    unit: Unit = "head"
    equal_counts: bool = False

    @property
    def layers(self) -> int:
        return int(self.head_s.shape[0])

    @property
    def heads(self) -> int:
        return int(self.head_s.shape[1])

    @property
    def kv_heads(self) -> int:
        return int(self.group_s.shape[1])

    @property
    def devices(self) -> int:
        return len(self.type_of)

    @cached_property
    def group_of_head(self) -> Ints:
        """KV head of every query head, `[heads]`."""
        return np.arange(self.heads, dtype=np.int64) // (self.heads // self.kv_heads)

    def layer(self, index: int) -> LayerProblem:
        """One layer in the problem's unit."""
        by_head = LayerProblem(
            item_s=self.head_s[index][:, self.type_of],
            group_s=self.group_s[index][:, self.type_of],
            launch_s=self.launch_s[self.type_of],
            group_of=self.group_of_head,
            type_of=self.type_of,
            equal_counts=self.equal_counts,
        )
        return by_head if self.unit == "head" else by_head.by_group()

    def devices_of_heads(self, assignment: Assignment) -> Ints:
        """Device of every query head, `[heads]`, for an assignment of the problem's items."""
        return assignment if self.unit == "head" else assignment[self.group_of_head]
