"""Which loads a machine can have: subset sums, of the right number of jobs where counts are asked.

The makespan is a machine's load, hence one of these sums, and a bound may be lifted to the next.
Bellman 1957, with one bit a sum: adding a job is a shift of the whole set.
"""

from functools import cached_property

from solver.partition.problem import PartitionProblem

MOST_WORK = 2**28
"""Bits shifted in all, some ten milliseconds; larger problems go without lifting."""


class ReachableLoads:
    """Loads up to `most` that some machine can have."""

    def __init__(self, problem: PartitionProblem, most: int) -> None:
        self._problem = problem
        self._most = most

    def at_least(self, load: int) -> int:
        """The least reachable load that is `load` or more; `load` itself where unknown."""
        if load > self._most or self._work > MOST_WORK:
            return load
        above = self._sums >> load
        return load + (above & -above).bit_length() - 1 if above else self._most + 1

    @property
    def _work(self) -> int:
        counts = self._problem.counts
        rows = 1 if counts is None else int(counts.max())
        return len(self._problem.jobs) * rows * self._most

    @cached_property
    def _sums(self) -> int:
        """Bit s is set when some allowed number of jobs adds up to s."""
        counts = self._problem.counts
        kept = (1 << (self._most + 1)) - 1
        if counts is None:
            sums = 1
            for job in self._problem.jobs:
                sums |= (sums << int(job)) & kept
            return sums
        of_count = [1] + [0] * int(counts.max())
        for job in self._problem.jobs:
            for count in range(len(of_count) - 1, 0, -1):
                of_count[count] |= (of_count[count - 1] << int(job)) & kept
        sums = 0
        for count in set(counts.tolist()):
            sums |= of_count[count]
        return sums
