"""The makespan problem: items (heads or KV groups) on devices, with a charge per group present.

All arrays are in seconds. A device's load in a layer, for one workload, is

    launch_s + sum over its items of [share * item_s + (1 - share) * part_s]
             + one group_s for every KV group of which it has a share,

and 0 when it has nothing; with slots a device pays its launch, which is then what all its slots
take, whatever it has. A whole item has share 1; `part_s` is what every device with a part of
a divided item does in full (its block selection), so that dividing costs what it repeats.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from solver.shares import Floats, Ints, Shares, present_pairs

Assignment = Ints
"""Device of every item of one layer, `[items]`."""

Unit = Literal["head", "kv_group"]


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """One layer: share every item out so that the weighted sum of largest loads is least.

    item_s   [workloads, items, devices]   the whole item on that device
    part_s   [workloads, items, devices]   what a part of it repeats there, at most item_s
    group_s  [workloads, groups, devices]  the charge for a group's presence there
    launch_s [workloads, devices]          paid by a device that has any item, or where it has slots
    weights  [workloads]                   of each workload's makespan; they add up to 1
    group_of [items]                       the KV group an item belongs to
    type_of  [devices]                     devices with equal numbers are identical

    Items stay whole unless `divisible`; then at most `max_copies` devices share one. With `slots`
    a device has items of so many groups at most.
    """

    item_s: Floats
    part_s: Floats
    group_s: Floats
    launch_s: Floats
    weights: Floats
    group_of: Ints
    type_of: Ints
    equal_counts: bool = False
    divisible: bool = False
    max_copies: int | None = None
    slots: int | None = None

    @property
    def workloads(self) -> int:
        return int(self.item_s.shape[0])

    @property
    def items(self) -> int:
        return int(self.item_s.shape[1])

    @property
    def groups(self) -> int:
        return int(self.group_s.shape[1])

    @property
    def devices(self) -> int:
        return int(self.item_s.shape[2])

    @cached_property
    def identical(self) -> bool:
        """Whether all devices are of one type."""
        return bool((self.type_of == self.type_of[0]).all())

    @cached_property
    def counts(self) -> Ints:
        """Items a device gets where counts are equal, `[devices]`: at most one apart, larger first.

        The shares that stock tensor parallelism gives where G does not divide the items.
        """
        small, larger = divmod(self.items, self.devices)
        return np.asarray(small + (np.arange(self.devices) < larger), dtype=np.int64)

    @cached_property
    def present(self) -> Ints:
        """Groups that have items, in order."""
        return np.unique(self.group_of)

    @cached_property
    def single_groups(self) -> bool:
        """Whether every group has one item, so that its charge simply rides with the item."""
        return len(self.present) == self.items

    @cached_property
    def charged(self) -> bool:
        """Whether any group's presence costs anything."""
        return bool(self.distinct(self.group_s).any())

    @cached_property
    def additive(self) -> bool:
        """Whether a load is just the sum of its items': nothing that a group's items share."""
        return self.slots is None and (self.single_groups or not self.charged)

    @cached_property
    def members(self) -> Floats:
        """1 where an item belongs to a group, `[groups, items]`."""
        return np.asarray(np.arange(self.groups)[:, None] == self.group_of, dtype=np.float64)

    @cached_property
    def blended_s(self) -> Floats:
        """Seconds of an item, averaged over the workloads by weight, `[items, devices]`."""
        if self.workloads == 1:
            return np.asarray(self.item_s[0])
        return self.everywhere(np.tensordot(self.weights, self.distinct(self.item_s), 1))

    def distinct(self, by_device: Floats) -> Floats:
        """`[..., devices]`, or of the first device alone where all are alike."""
        return by_device[..., :1] if self.identical else by_device

    def everywhere(self, of_each: Floats) -> Floats:
        """`[..., devices]` again: a view that takes no memory."""
        return np.broadcast_to(of_each, (*of_each.shape[:-1], self.devices))

    def item_with_charge_s(self) -> Floats:
        """Seconds of an item alone with its group's charge, `[workloads, items, devices]`."""
        charge_s = self.distinct(self.group_s)[:, self.group_of]
        return self.everywhere(self.distinct(self.item_s) + charge_s)

    def whole(self, assignment: Assignment) -> Shares:
        """An assignment as shares of 1."""
        return Shares.whole(assignment, self.devices)

    def loads(self, assignment: Assignment) -> Floats:
        """Seconds of every device with every item whole, `[workloads, devices]`."""
        return self.loads_of_shares(self.whole(assignment))

    def loads_of_shares(self, shares: Shares) -> Floats:
        """Seconds of every device, `[workloads, devices]`."""
        device = shares.device
        busy = np.bincount(device, minlength=self.devices) > 0
        charges_s = np.where(busy | (self.slots is not None), self.launch_s, 0.0)
        if self.charged:
            group, at = shares.of_groups(self.group_of)
            charges_s = _added(at, self.group_s[:, group, at], self.devices) + charges_s
        return _added(device, self.work_s(shares), self.devices) + charges_s

    def work_s(self, shares: Shares) -> Floats:
        """Seconds of every part, `[workloads, parts]`."""
        work_s = self.item_s[:, shares.item, shares.device]
        if not shares.divided:
            return work_s
        part_s = self.part_s[:, shares.item, shares.device]
        return (work_s - part_s) * shares.share + part_s

    def loads_of_each(self, shares: Sequence[Shares]) -> Floats:
        """Seconds of every device, `[workloads, devices]`, where every workload has its own rows.

        `shares` of every workload: the same ones, rounded to its query blocks.
        """
        each = [self.of_workload(w).loads_of_shares(own) for w, own in enumerate(shares)]
        return np.concatenate(each)

    def makespan(self, assignment: Assignment) -> float:
        """The weighted sum of the workloads' largest loads, seconds."""
        return self.objective(self.loads(assignment))

    def objective(self, loads: Floats) -> float:
        """The weighted sum of largest loads, for loads `[workloads, devices]`."""
        return float(self.weights @ loads.max(axis=1))

    def allows(self, assignment: Assignment) -> bool:
        """Whether an assignment obeys the counts and the slots."""
        if self.slots is not None and not self.within_slots(self.whole(assignment)):
            return False
        if not self.equal_counts:
            return True
        return bool((np.bincount(assignment, minlength=self.devices) == self.counts).all())

    def allows_shares(self, shares: Shares) -> bool:
        """Whether shares of divisible items obey the copies and the slots."""
        copies = self.devices if self.max_copies is None else self.max_copies
        return int(shares.parts.max()) <= copies and self.within_slots(shares)

    def within_slots(self, shares: Shares) -> bool:
        """Whether no device has items of more groups than it has slots."""
        if self.slots is None:
            return True
        _, device = shares.of_groups(self.group_of)
        return int(np.bincount(device).max()) <= self.slots

    def by_group(self) -> "LayerProblem":
        """The same layer with whole KV groups as items."""
        item_s = self.everywhere(self.members @ self.distinct(self.item_s))
        return replace(
            self,
            item_s=item_s,
            part_s=np.broadcast_to(0.0, item_s.shape),
            group_of=np.arange(self.groups, dtype=np.int64),
        )

    def of_workload(self, index: int) -> "LayerProblem":
        """The same layer for one workload alone."""
        if self.workloads == 1:
            return self
        one = slice(index, index + 1)
        return replace(
            self,
            item_s=self.item_s[one],
            part_s=self.part_s[one],
            group_s=self.group_s[one],
            launch_s=self.launch_s[one],
            weights=np.ones(1),
        )


def loads_of_layers(layers: Sequence[LayerProblem], shares: Sequence[Shares]) -> Floats:
    """`loads_of_shares` of all layers of a problem, `[workloads, layers, devices]`.

    Added up at once: a layer is a few dozen numbers, and calling numpy takes longer than adding.
    """
    first, devices = layers[0], layers[0].devices
    places = len(layers) * devices
    place = np.concatenate([own.device + at * devices for at, own in enumerate(shares)])
    parts_s = [layer.work_s(own) for layer, own in zip(layers, shares, strict=True)]
    busy = np.bincount(place, minlength=places) > 0
    launch_s = np.tile(first.launch_s, len(layers))
    loads = np.where(busy | (first.slots is not None), launch_s, 0.0)
    if any(layer.charged for layer in layers):
        loads = _charges_s(layers, shares) + loads
    loads = _added(place, np.concatenate(parts_s, axis=1), places) + loads
    return loads.reshape(-1, len(layers), devices)


def _charges_s(layers: Sequence[LayerProblem], shares: Sequence[Shares]) -> Floats:
    """What groups' presence takes of every device, layer after layer, `[workloads, places]`."""
    groups, devices = layers[0].groups, layers[0].devices
    pairs = [
        (layer.group_of[own.item] + at * groups) * devices + own.device
        for at, (layer, own) in enumerate(zip(layers, shares, strict=True))
    ]
    group, device = present_pairs(np.concatenate(pairs), devices)
    group_s = np.concatenate([layer.distinct(layer.group_s) for layer in layers], axis=1)
    each_s = layers[0].everywhere(group_s)[:, group, device]
    return _added(group // groups * devices + device, each_s, len(layers) * devices)


def _added(place: Ints, seconds: Floats, places: int) -> Floats:
    """Seconds `[workloads, n]` by place, `[workloads, places]`."""
    return np.array([np.bincount(place, own, places) for own in seconds])


@dataclass(frozen=True, eq=False)
class PlacementProblem:
    """All layers of a model on a set of devices, for one workload or several.

    head_s and part_s [workloads, layers, heads, types], group_s [workloads, layers, kv_heads,
    types], launch_s [workloads, types], weights [workloads], type_of [devices]; the rest are the
    rules a placement obeys. Where whole KV groups are fewer than the devices, and these share
    their heads out evenly, each is copied to as many as engines copy it to (`replicas`).
    """

    head_s: Floats
    part_s: Floats
    group_s: Floats
    launch_s: Floats
    weights: Floats
    type_of: Ints
    unit: Unit = "head"
    equal_counts: bool = False
    divisible: bool = False
    max_copies: int | None = None
    slots: int | None = None

    @property
    def workloads(self) -> int:
        return int(self.head_s.shape[0])

    @property
    def layers(self) -> int:
        return int(self.head_s.shape[1])

    @property
    def heads(self) -> int:
        return int(self.head_s.shape[2])

    @property
    def kv_heads(self) -> int:
        return int(self.group_s.shape[2])

    @property
    def devices(self) -> int:
        return len(self.type_of)

    @cached_property
    def identical(self) -> bool:
        """Whether all devices are of one type."""
        return bool((self.type_of == self.type_of[0]).all())

    @property
    def replicas(self) -> int:
        """Devices of a KV group where the unit is the group, each with as many of its heads."""
        if self.unit == "head" or self.devices % self.kv_heads or self.heads % self.devices:
            return 1
        return self.devices // self.kv_heads

    @property
    def whole_groups(self) -> bool:
        """Whether items are KV groups, not heads."""
        return self.unit == "kv_group" and self.replicas == 1

    @cached_property
    def group_of_head(self) -> Ints:
        """KV head of every query head, `[heads]`."""
        return np.arange(self.heads, dtype=np.int64) // (self.heads // self.kv_heads)

    def layer(self, index: int) -> LayerProblem:
        """One layer in the problem's unit, made once."""
        if index not in self._layers:
            self._layers[index] = self._layer(index)
        return self._layers[index]

    @cached_property
    def _layers(self) -> dict[int, LayerProblem]:
        return {}

    def _layer(self, index: int) -> LayerProblem:
        head_s, part_s, group_s, launch_s = self._on_devices
        by_head = LayerProblem(
            item_s=head_s[:, index],
            part_s=part_s[:, index],
            group_s=group_s[:, index],
            launch_s=launch_s,
            weights=self.weights,
            group_of=self.group_of_head,
            type_of=self.type_of,
            equal_counts=self.equal_counts,
            divisible=self.divisible,
            max_copies=self.max_copies,
            slots=self.slots,
        )
        if self.replicas > 1:
            return replace(by_head, equal_counts=True, slots=1)
        return by_head.by_group() if self.whole_groups else by_head

    @cached_property
    def _on_devices(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Heads, parts, groups and launches as `[..., devices]`, made once for all layers."""
        return (
            self._by_device(self.head_s),
            self._by_device(self.part_s),
            self._by_device(self.group_s),
            self._by_device(self.launch_s),
        )

    def _by_device(self, by_type: Floats) -> Floats:
        """`[..., types]` as `[..., devices]`; of one type, a view that takes no memory."""
        if not self.identical:
            return np.take(by_type, self.type_of, axis=-1)
        only = by_type[..., self.type_of[:1]]
        return np.broadcast_to(only, (*only.shape[:-1], self.devices))

    def shares_of_heads(self, shares: Shares) -> Shares:
        """Shares of the query heads, for shares of the problem's items."""
        return shares.rows(self.group_of_head) if self.whole_groups else shares

    def loads_of_each(self, shares: Sequence[Sequence[Shares]]) -> Floats:
        """Seconds of every device, `[workloads, layers, devices]`, for shares of the items.

        `shares` [workloads][layers]: every workload's in its own rows.
        """
        layers = [self.layer(index) for index in range(self.layers)]
        each = [
            loads_of_layers([layer.of_workload(w) for layer in layers], own)
            for w, own in enumerate(shares)
        ]
        return np.concatenate(each)

    def weighing(self, weights: Floats) -> "PlacementProblem":
        """The same problem with other weights of its workloads."""
        return self if np.array_equal(weights, self.weights) else replace(self, weights=weights)

    def by_head(self) -> "PlacementProblem":
        """The same problem with single heads as items."""
        return self if self.unit == "head" else replace(self, unit="head")
