"""Seconds as whole numbers, rounded down: what is proved of the numbers holds of the seconds.

Rounding to the nearest makes "bounds" above the true optimum. What a search finds in whole numbers
is judged on the true costs.
"""

import numpy as np

from solver.shares import Floats, Ints

ROUNDING = 1 + 1e-10
"""A cost this little below a whole number counts as that number ..."""

SAFETY = 1 - 1e-9
"""... and every bound is lowered by more than that."""

SCALES = 4_000
"""How many scales are tried for the one that rounds away least, ..."""

FEW_VALUES = 32
"""... where costs have so few values that one may well stand out."""


def scale_of(costs_s: Floats, most_s: float, levels: int, *, parts: bool = False) -> float:
    """Numbers a second, so that `most_s` is about half of `levels` to all of them.

    1 where the costs are whole numbers already and small enough, unless `parts` of them are taken.
    Where they have few values, some scale leaves nearly all of them whole.
    """
    values, times = np.unique(costs_s[costs_s > 0], return_counts=True)
    if not parts and most_s <= levels and (values == np.rint(values)).all():
        return 1.0
    even = np.linspace(0.5, 1.0, SCALES) * levels / most_s
    if not 0 < len(values) <= FEW_VALUES:
        return float(even[-1])
    commonest = values[times.argmax()]
    fitting = np.maximum(np.round(even * commonest), 1) / commonest
    # Of a value far below the others one level each would be more levels than there may be.
    scales = np.concatenate([even, fitting[fitting <= levels / most_s]])
    lost = np.zeros(len(scales))
    for value, count in zip(values, times, strict=True):
        lost += count * (value * scales * ROUNDING % 1.0)
    return float(scales[np.argmin(lost / scales)])


def whole(seconds: Floats, scale: float) -> Ints:
    """Costs rounded down to whole numbers."""
    return np.asarray(np.floor(seconds * scale * ROUNDING), dtype=np.int64)


def seconds_of(number: float, scale: float) -> float:
    """What a bound in whole numbers says of the seconds."""
    return SAFETY * number / scale
