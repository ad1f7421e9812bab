"""Bounds on the makespan that need no search.

The mean load; the largest job; pigeonhole over the kG + 1 largest jobs (Graham 1969; Dell'Amico &
Martello 1995); and what machines must hold that have a count.
"""

import numpy as np

from solver.partition.problem import PartitionProblem
from solver.problem import Ints


def lower_bounds(problem: PartitionProblem) -> list[tuple[int, str]]:
    """Bounds and their proofs, rising."""
    ascending = np.sort(problem.jobs)
    bounds = [
        (-(-problem.total // problem.machines), "mean load"),
        (int(ascending[-1]), "largest job"),
        (_pigeonhole(ascending[::-1], problem.machines), "pigeonhole"),
    ]
    if problem.counts is not None:
        bounds.append((_counts(ascending, problem.counts), "smallest jobs of a count"))
    return sorted(bounds, key=lambda bound: bound[0])


def _pigeonhole(descending: Ints, machines: int) -> int:
    """Among the kG + 1 largest jobs some machine has k + 1, at least the k + 1 smallest of them."""
    best = 0
    for k in range(1, (len(descending) - 1) // machines + 1):
        last = k * machines + 1
        best = max(best, int(descending[last - k - 1 : last].sum()))
    return best


def _counts(ascending: Ints, counts: Ints) -> int:
    """The largest job has the smallest beside it; the largest count is of the smallest at least."""
    beside = max(int(counts[counts > 0].min()) - 1, 0)
    largest = int(ascending[-1] + ascending[:beside].sum())
    return max(largest, int(ascending[: int(counts.max())].sum()))
