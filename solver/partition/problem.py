"""Jobs on identical machines (P||Cmax), optionally with a number of jobs for every machine.

Equal counts need no code of their own in the search: with every job made heavier by `tag`, more
than any makespan, a machine whose room is `makespan + counts * tag` takes at most its count.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from solver.problem import Assignment, Ints

LARGEST_TOTAL = 2**62
"""Sums are made in 64-bit integers."""


@dataclass(frozen=True, eq=False)
class PartitionProblem:
    """jobs [jobs] non-negative integers; counts [machines] jobs of every machine, or None."""

    jobs: Ints
    machines: int
    counts: Ints | None = None

    def __post_init__(self) -> None:
        if self.machines < 1:
            raise ValueError(f"machines is {self.machines}, must be at least 1")
        if (self.jobs < 0).any():
            raise ValueError("a job is negative")
        total = sum(int(job) for job in self.jobs) + 1
        if total * (1 if self.counts is None else len(self.jobs) + 1) >= LARGEST_TOTAL:
            raise ValueError("the jobs are too large to add up in 64 bits")
        if self.counts is None:
            return
        if len(self.counts) != self.machines or (self.counts < 0).any():
            raise ValueError("counts must give every machine a number of jobs")
        if self.counts.sum() != len(self.jobs):
            raise ValueError(f"counts add up to {self.counts.sum()}, not to {len(self.jobs)} jobs")

    @cached_property
    def total(self) -> int:
        return int(self.jobs.sum())

    @cached_property
    def weights(self) -> Ints:
        """Jobs with the tag that makes rooms count them, `[jobs]`."""
        return self.jobs if self.counts is None else self.jobs + (self.total + 1)

    @cached_property
    def allowances(self) -> Ints:
        """What a machine's room has beyond the makespan, `[machines]`."""
        if self.counts is None:
            return np.zeros(self.machines, dtype=np.int64)
        return np.asarray(self.counts * (self.total + 1), dtype=np.int64)

    @cached_property
    def longest_first(self) -> Ints:
        """Jobs by falling size, `[jobs]`."""
        return np.argsort(-self.jobs, kind="stable")

    def loads(self, machine_of: Assignment) -> Ints:
        """Load of every machine, `[machines]`."""
        loads = np.zeros(self.machines, dtype=np.int64)
        np.add.at(loads, machine_of, self.jobs)
        return loads

    def allows(self, machine_of: Assignment) -> bool:
        """Whether every machine gets its count."""
        got = np.bincount(machine_of, minlength=self.machines)
        return self.counts is None or bool((got == self.counts).all())

    def checked(self, machine_of: Assignment) -> Assignment:
        """The assignment, if it is one and obeys the counts."""
        if machine_of.shape != self.jobs.shape:
            raise ValueError("start must give every job a machine")
        if (machine_of < 0).any() or (machine_of >= self.machines).any():
            raise ValueError(f"start names a machine outside 0 to {self.machines - 1}")
        if not self.allows(machine_of):
            raise ValueError("start does not obey the counts")
        return machine_of
