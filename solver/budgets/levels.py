"""The highest common level that fits: the bisection in level filling (progressive freezing)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from solver.budgets.curves import Floats

Mask = NDArray[np.bool_]


def highest_fitting(fits: Callable[[Floats], Mask], number: int, halvings: int) -> Floats:
    """The highest of so many levels between 0 and 1, `[number]`, each apart from the others.

    `fits` tells which of the levels do; 0 counts as fitting. `halvings` leave 2 ** -halvings open.
    """
    high = np.ones(number)
    low = np.where(fits(high), 1.0, 0.0)
    for _ in range(halvings):
        middle = (low + high) / 2
        fitting = fits(middle)
        low, high = np.where(fitting, middle, low), np.where(fitting, high, middle)
    return low
