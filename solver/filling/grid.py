"""Costs floored to a grid of integers, so that what fits on a device fits on the grid too."""

from dataclasses import dataclass

import numpy as np

from solver.integers import scale_of, whole
from solver.shares import Floats, Ints


@dataclass(frozen=True, eq=False)
class Grid:
    """Integer costs; a makespan of T seconds is the capacity floor(T * scale) of every device.

    item [items, types], charge [groups, types], launch [types]; `members` the items of every
    group, group 0 being all items whose groups charge nothing.
    """

    item: Ints
    charge: Ints
    launch: Ints
    members: tuple[Ints, ...]
    scale: float

    def capacity(self, seconds: float) -> int:
        return int(whole(np.array(seconds), self.scale))


def make_grid(
    item_s: Floats,
    charge_s: Floats,
    launch_s: Floats,
    group_of: Ints,
    reached_s: float,
    levels: int,
    *,
    divisible: bool,
) -> Grid:
    """Item costs [items, types] and the others on about `levels` levels of `reached_s`.

    A group of one whole item is an item that costs its charge more. (Not a divided one: every part
    pays the charge in full.)
    """
    sizes = np.bincount(group_of, minlength=len(charge_s))
    if not divisible:
        alone = sizes == 1
        item_s = item_s + np.where(alone[:, None], charge_s, 0.0)[group_of]
        charge_s = np.where(alone[:, None], 0.0, charge_s)
    charging = np.flatnonzero((sizes > 0) & (charge_s > 0).any(axis=1))
    free = np.flatnonzero(~np.isin(group_of, charging))
    charge_s = np.vstack([np.zeros((1, charge_s.shape[1])), charge_s[charging]])
    costs_s = np.vstack([item_s, charge_s, launch_s[None]])
    scale = scale_of(costs_s, reached_s, levels, parts=divisible)
    item, charge, launch = (whole(cost, scale) for cost in (item_s, charge_s, launch_s))
    members = (free, *(np.flatnonzero(group_of == g) for g in charging))
    return Grid(item, charge, launch, members, scale)


def alike(grid: Grid) -> Ints:
    """Numbers of classes of items that some symmetry exchanges, [items].

    Items of one cost in one group, or in groups with equal charges and equal items.
    """
    number = np.empty(len(grid.item), dtype=np.int64)
    known: dict[tuple[object, ...], int] = {}
    for group, items in enumerate(grid.members):
        rows = [row.tobytes() for row in grid.item[items]]
        signature = (grid.charge[group].tobytes(), tuple(sorted(rows)) if group else None)
        for item, row in zip(items, rows, strict=True):
            number[item] = known.setdefault((signature, row), len(known))
    return number
