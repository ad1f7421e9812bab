"""Who does what of one layer's items: the parts there are, not a table of items times devices.

Of thousands of devices an item is on a few: filling one device after the other makes at most
items + devices - 1 parts, and all that is done with them takes as long as there are parts.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_SHARE = 1e-9
"""Below this a share is rounding noise of a linear program, not work."""

MARKED = 2**14
"""Pairs up to which those that are there are marked in an array: quicker than to sort them."""


@dataclass(frozen=True, eq=False)
class Shares:
    """The fraction of `item[p]` that `device[p]` does, `share[p]` above 0, for every part p.

    Parts are ordered by item, then by device, each pair once; of an item they add up to 1.
    """

    item: Ints
    device: Ints
    share: Floats
    items: int
    devices: int

    @classmethod
    def whole(cls, assignment: Ints, devices: int) -> Self:
        """Every item on its one device, `assignment` [items]."""
        items = len(assignment)
        return cls(np.arange(items), assignment, np.ones(items), items, devices)

    @classmethod
    def of(cls, dense: Floats) -> Self:
        """Of an array `[items, devices]`, as it is."""
        item, device = np.nonzero(dense > 0)
        return cls(item, device, dense[item, device], *dense.shape)

    @classmethod
    def cleaned(
        cls, item: ArrayLike, device: ArrayLike, share: ArrayLike, items: int, devices: int
    ) -> Self:
        """Of parts in any order, those of a pair added up, without the noise of floating point."""
        key = np.asarray(item, dtype=np.int64) * devices + np.asarray(device, dtype=np.int64)
        pairs, pair = np.unique(key, return_inverse=True)
        amount = np.bincount(pair, np.asarray(share, dtype=np.float64))
        kept = amount > LEAST_SHARE
        items_kept, devices_kept = np.divmod(pairs[kept], devices)
        total = np.bincount(items_kept, amount[kept])
        return cls(items_kept, devices_kept, amount[kept] / total[items_kept], items, devices)

    @cached_property
    def dense(self) -> Floats:
        """The array `[items, devices]`, for few devices and for whoever asks."""
        shares = np.zeros((self.items, self.devices))
        shares[self.item, self.device] = self.share
        return shares

    @cached_property
    def parts(self) -> Ints:
        """How many devices have a part of every item, `[items]`."""
        return np.bincount(self.item, minlength=self.items)

    @cached_property
    def assignment(self) -> Ints:
        """The device with most of each item, the first of equals, `[items]`."""
        order = np.lexsort((-self.share, self.item))
        return np.asarray(self.device[order[np.cumsum(self.parts) - self.parts]])

    @property
    def divided(self) -> bool:
        """Whether any item is on several devices."""
        return bool((self.share < 1).any())

    def amounts(self) -> Floats:
        """Items, and fractions of them, that every device does, `[devices]`."""
        return np.asarray(np.bincount(self.device, self.share, self.devices), dtype=np.float64)

    def of_groups(self, group_of: Ints) -> tuple[Ints, Ints]:
        """The pairs of a group and a device that has part of one of its items, by group.

        `group_of` [items]; group and device `[pairs]`.
        """
        return present_pairs(group_of[self.item] * self.devices + self.device, self.devices)

    def even(self) -> Self:
        """The same pairs, each item in equal parts."""
        share = 1 / self.parts[self.item]
        return type(self)(self.item, self.device, share, self.items, self.devices)

    def rows(self, items: Ints) -> Self:
        """What is done of these items, in this order; one may come several times."""
        count = self.parts[items]
        first = (np.cumsum(self.parts) - self.parts)[items]
        own = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        at = np.repeat(first, count) + own
        item = np.repeat(np.arange(len(items)), count)
        return type(self)(item, self.device[at], self.share[at], len(items), self.devices)

    def dealt(self, order: Ints) -> Self:
        """Device d does what device `order[d]` did, for `order` a permutation of the devices."""
        taker = np.empty_like(order)
        taker[order] = np.arange(self.devices)
        device = taker[self.device]
        by_place = np.lexsort((device, self.item))
        share = self.share[by_place]
        return type(self)(self.item, device[by_place], share, self.items, self.devices)

    def common(self, other: Self) -> float:
        """Items, and fractions of them, that the same devices do in both."""
        ours, theirs = (own.item * own.devices + own.device for own in (self, other))
        _, mine, its = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
        return float(np.minimum(self.share[mine], other.share[its]).sum())

    def equals(self, other: Self) -> bool:
        """Whether everything is done by the same devices in the same shares."""
        return (
            np.array_equal(self.item, other.item)
            and np.array_equal(self.device, other.device)
            and np.array_equal(self.share, other.share)
        )


def present_pairs(key: Ints, devices: int) -> tuple[Ints, Ints]:
    """The pairs of a group and a device that are in `key`, group * devices + device, in order.

    Group and device `[pairs]`, each pair once.
    """
    size = int(key.max(initial=-1)) + 1
    if size <= MARKED:
        marked = np.zeros(size, dtype=bool)
        marked[key] = True
        pairs = np.flatnonzero(marked)
    else:
        pairs = np.unique(key)
    group = pairs // devices
    return group, pairs - group * devices
