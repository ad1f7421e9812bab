"""A partition problem in few integer levels, for dynamic programming over capacities.

Where every machine has its count, the smallest job is taken off all jobs: it moves every machine
of a count alike. Then everything is divided by the common divisor, so that two-valued costs become
0 and 1. Where too many levels remain the unit is coarser and sizes are floored: what is impossible
for the floored jobs is impossible for the true ones.
"""

from dataclasses import dataclass

import numpy as np

from solver.partition.problem import PartitionProblem
from solver.problem import Ints

MOST_CELLS = 3 * 10**7
"""Cells of one dynamic program, some tens of milliseconds."""


@dataclass(frozen=True)
class Kind:
    """`machines` machines of `count` jobs each, or of any number where it is None."""

    machines: int
    count: int | None

    @property
    def row(self) -> int:
        """Its row of a knapsack's table."""
        return self.count or 0


@dataclass(frozen=True, eq=False)
class Levels:
    """sizes [sizes] and copies [sizes] of the jobs, in units above `shift`; kinds of machines."""

    sizes: Ints
    copies: Ints
    kinds: list[Kind]
    shift: int
    unit: int

    def capacity(self, kind: Kind, makespan: int) -> int:
        """Levels that a machine can hold within the makespan."""
        return (makespan - kind.row * self.shift) // self.unit


def levels(problem: PartitionProblem, makespan: int) -> Levels:
    """The problem in levels, for makespans up to the one given."""
    kinds = _kinds(problem)
    shift = 0 if problem.counts is None else int(problem.jobs.min())
    above = problem.jobs - shift
    rows = max(kind.row for kind in kinds) + 1
    cells = (makespan - shift * min(kind.row for kind in kinds)) * rows * len(problem.jobs)
    unit = max(int(np.gcd.reduce(above)), -(-cells // MOST_CELLS), 1)
    sizes, copies = np.unique(above // unit, return_counts=True)
    if problem.counts is None and len(sizes) > 1 and sizes[0] == 0:
        sizes, copies = sizes[1:], copies[1:]
    return Levels(sizes[::-1], copies[::-1], kinds, shift, unit)


def _kinds(problem: PartitionProblem) -> list[Kind]:
    if problem.counts is None:
        return [Kind(problem.machines, None)]
    counts, machines = np.unique(problem.counts[problem.counts > 0], return_counts=True)
    return [Kind(int(m), int(c)) for c, m in zip(counts, machines, strict=True)]
