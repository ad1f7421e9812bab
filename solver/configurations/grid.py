"""Costs floored to a grid of integers, so that what fits on a device fits on the grid too."""

from dataclasses import dataclass

import numpy as np

from solver.problem import Floats, Ints

ROUNDING = 1 + 1e-10
"""A cost this little below a grid line counts as on it: far less than the bound is lowered by."""
SCALES = 4_000
"""How many grids are tried for the one that floors away least, ..."""
FEW_VALUES = 32
"""... where costs have so few values that one may well stand out."""


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
        return int(np.floor(seconds * self.scale * ROUNDING))


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
    scale = _scale(np.vstack([item_s, charge_s, launch_s[None]]), reached_s, levels)
    item, charge, launch = (
        np.floor(cost * scale * ROUNDING).astype(np.int64) for cost in (item_s, charge_s, launch_s)
    )
    members = (free, *(np.flatnonzero(group_of == g) for g in charging))
    return Grid(item, charge, launch, members, scale)


def _scale(costs_s: Floats, reached_s: float, levels: int) -> float:
    """Levels a second: of many that give half to all of `levels`, the one that loses least.

    Where costs have few values, some grid has nearly all of them on its lines.
    """
    values, times = np.unique(costs_s[costs_s > 0], return_counts=True)
    even = np.linspace(0.5, 1.0, SCALES) * levels / reached_s
    if not 0 < len(values) <= FEW_VALUES:
        return float(even[-1])
    commonest = values[times.argmax()]
    fitting = np.maximum(np.round(even * commonest), 1) / commonest
    # Of a value far below the others one level each would be more levels than there may be.
    scales = np.concatenate([even, fitting[fitting <= levels / reached_s]])
    lost = np.zeros(len(scales))
    for value, count in zip(values, times, strict=True):
        lost += count * (value * scales * ROUNDING % 1.0)
    return float(scales[np.argmin(lost / scales)])


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
