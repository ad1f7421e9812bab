"""Every way to fill one of identical devices within a capacity, where items repeat few costs.

Listed group by group. A device that does too little leaves more than the others can do, and, unless
counts are equal, a filling that has room for another item is covered by the larger one: both are
left out (dominance among cutting patterns, Gilmore & Gomory 1961).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from solver.deadline import Deadline
from solver.exact.interchangeable import Classes
from solver.integers import whole
from solver.problem import LayerProblem
from solver.shares import Floats, Ints

MOST_PARTIAL = 1_000_000
"""Partial fillings looked at in one step; some 50 ms."""


@dataclass(frozen=True, eq=False)
class WholeCosts:
    """A layer on identical devices in whole numbers, rounded down.

    item [classes], charge [groups]; counts [devices] items, or None where they are free; groups of
    a device are at most `slots`, if any. Launches are apart: they move every load alike.
    """

    classes: Classes
    item: Ints
    charge: Ints
    devices: int
    counts: Ints | None
    slots: int | None

    @classmethod
    def of(cls, layer: LayerProblem, classes: Classes, scale: float) -> Self:
        """In `scale` whole numbers a second."""
        return cls(
            classes,
            whole(classes.cost_s[0, :, 0], scale),
            whole(classes.charge_s[0, :, 0], scale),
            layer.devices,
            layer.counts if layer.equal_counts else None,
            layer.slots,
        )

    def groups(self) -> list[Ints]:
        """The classes of every group."""
        return [np.flatnonzero(self.classes.group_of == g) for g in range(len(self.charge))]


def all_fillings(costs: WholeCosts, room: int, deadline: Deadline) -> Ints | None:
    """The fillings some placement within `room` is made of, `[fillings, classes]`; None: too many.

    Placements up to names of devices, and with free counts up to items done twice. What does most
    comes first.
    """
    quantity = costs.classes.quantity
    most = int(quantity.sum() if costs.counts is None else costs.counts.max())
    worth = _worth(costs)
    # What all others cannot do is left to each.
    least = float(worth @ quantity) * (1 - 1e-9) - (costs.devices - 1) * room
    load = np.zeros(1, dtype=np.int64)
    chosen = np.zeros((1, len(quantity)), dtype=np.int16)
    held = np.zeros(1, dtype=np.int64)
    slots = len(costs.charge) if costs.slots is None else costs.slots
    to_come = float(worth @ quantity)
    for group, classes in enumerate(costs.groups()):
        options = _options(quantity[classes])
        if options is None or len(load) * len(options) > MOST_PARTIAL or deadline.left_s <= 0:
            return None
        cost = options @ costs.item[classes] + np.where(options.any(axis=1), costs.charge[group], 0)
        to_come -= float(worth[classes] @ quantity[classes])
        after = load[:, None] + cost
        groups = held[:, None] + options.any(axis=1)
        row, option = np.nonzero((after <= room) & (groups <= slots))
        load, chosen, held = after[row, option], chosen[row], groups[row, option]
        chosen[:, classes] = options[option]
        useful = (chosen @ worth + to_come >= least) & (chosen.sum(axis=1) <= most)
        load, chosen, held = load[useful], chosen[useful], held[useful]
    if costs.counts is not None:
        kept = np.isin(chosen.sum(axis=1), costs.counts)
    else:
        kept = ~_has_room(costs, load, chosen, room, held < slots)
    fillings = chosen[kept].astype(np.int64)
    return np.asarray(fillings[np.argsort(-(fillings @ worth), kind="stable")])


def _worth(costs: WholeCosts) -> Floats:
    """An item's cost and its part of its group's charge: no filling is worth more than its load."""
    sizes = np.bincount(costs.classes.group_of, costs.classes.quantity, len(costs.charge))
    return np.asarray(costs.item + (costs.charge / np.maximum(sizes, 1))[costs.classes.group_of])


def _options(quantity: Ints) -> Ints | None:
    """Every number of items of each class of a group, `[options, classes]`; None: too many."""
    if float(np.prod(quantity + 1.0)) > MOST_PARTIAL:
        return None
    every = np.indices(tuple(quantity + 1)).reshape(len(quantity), -1)
    return np.asarray(every.T, dtype=np.int64)


def _has_room(
    costs: WholeCosts, load: Ints, chosen: NDArray[np.int16], room: int, free: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether a filling could take one more item, `[fillings]`; of a new group where `free`."""
    more = np.zeros(len(load), dtype=bool)
    for group, classes in enumerate(costs.groups()):
        present = chosen[:, classes].any(axis=1)
        charge = np.where(present, 0, costs.charge[group])
        for number in classes:
            left = chosen[:, number] < costs.classes.quantity[number]
            more |= left & (present | free) & (load + costs.item[number] + charge <= room)
    return more
