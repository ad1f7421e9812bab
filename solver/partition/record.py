"""The best partition found and the best bound proved so far, and when they are good enough."""

import math
from collections.abc import Callable

import numpy as np

from solver.partition.problem import PartitionProblem
from solver.partition.reachable import ReachableLoads
from solver.problem import Assignment


class Record:
    """What all methods improve on. `on_improve` hears of every better partition and bound."""

    def __init__(
        self,
        problem: PartitionProblem,
        start: Assignment,
        gap: float,
        on_improve: Callable[[int, int], None] | None,
    ) -> None:
        self.problem = problem
        self.machine_of = start
        self.makespan = int(problem.loads(start).max())
        self.lower_bound = 0
        self.proof = "mean load"
        self._reachable = ReachableLoads(problem, self.makespan)
        self._gap = gap
        self._on_improve = on_improve

    @property
    def goal(self) -> int:
        """The largest makespan that would end the search, by the bound as it stands."""
        return max(self.lower_bound, math.floor(self.lower_bound / (1 - self._gap)))

    @property
    def closed(self) -> bool:
        return self.makespan <= self.goal

    def offer(self, machine_of: Assignment) -> bool:
        """Keep a partition that is better; whether it is."""
        makespan = int(self.problem.loads(machine_of).max())
        if makespan >= self.makespan or not self.problem.allows(machine_of):
            return False
        self.machine_of, self.makespan = np.array(machine_of, dtype=np.int64), makespan
        self._tell()
        return True

    def raise_bound(self, lower_bound: int, proof: str) -> None:
        """Keep a bound that is better, lifted to the next load that a machine can have."""
        if lower_bound <= self.lower_bound:
            return
        self.lower_bound = min(self._reachable.at_least(lower_bound), self.makespan)
        self.proof = proof
        self._tell()

    def _tell(self) -> None:
        if self._on_improve is not None:
            self._on_improve(self.makespan, self.lower_bound)
