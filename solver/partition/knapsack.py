"""The most valuable jobs for every capacity: dynamic programming over capacities (Bellman 1957).

In integers throughout, so that what follows from it is proved. One pass serves all capacities and
all numbers of jobs up to the largest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solver.placement.exact import Deadline
from solver.problem import Ints


@dataclass(frozen=True, eq=False)
class Knapsack:
    """best [rows, capacities]: the largest value; a row for each number of jobs, or one for any."""

    sizes: Ints
    best: Ints
    _took: list[tuple[int, NDArray[np.bool_]]]

    def filling(self, row: int, capacity: int) -> Ints:
        """How many of each size make the best value there, `[sizes]`."""
        taken = np.zeros(len(self.sizes), dtype=np.int64)
        counted = len(self.best) > 1
        for kind, took in reversed(self._took):
            below = capacity - int(self.sizes[kind])
            if below >= 0 and row >= counted and took[row - counted, below]:
                taken[kind] += 1
                capacity = below
                row -= counted
        return taken


def knapsack(
    sizes: Ints, copies: Ints, values: Ints, capacity: int, most: int | None, deadline: Deadline
) -> Knapsack | None:
    """At most `copies` of each size, at most `most` in all where given; None past the deadline."""
    rows = 1 if most is None else most + 1
    best = np.zeros((rows, capacity + 1), dtype=np.int64)
    fewer = best if most is None else best[:-1]
    more = best if most is None else best[1:]
    took: list[tuple[int, NDArray[np.bool_]]] = []
    for kind, (size, value) in enumerate(zip(sizes.tolist(), values.tolist(), strict=True)):
        if value <= 0 or size > capacity:
            continue
        for _ in range(int(copies[kind])):
            if deadline.left_s <= 0:
                return None
            with_it = fewer[:, : capacity + 1 - size] + value
            better = with_it > more[:, size:]
            if not better.any():
                break
            np.maximum(more[:, size:], with_it, out=more[:, size:])
            took.append((kind, better))
    return Knapsack(sizes, best, took)
