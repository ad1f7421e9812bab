"""A partition being changed: who has which job, and what every machine holds."""

import numpy as np

from solver.partition.problem import PartitionProblem
from solver.problem import Assignment, Ints


class Machines:
    """machine_of [jobs] and loads [machines], kept together."""

    def __init__(self, problem: PartitionProblem, machine_of: Assignment) -> None:
        self.problem = problem
        self.machine_of = np.array(machine_of, dtype=np.int64)
        self.loads = problem.loads(machine_of)

    @property
    def makespan(self) -> int:
        return int(self.loads.max())

    def free_jobs(self, members: Ints, most: int, random: np.random.Generator) -> Ints:
        """The members' jobs, or a random choice of `most` of them: the others stay."""
        jobs = np.flatnonzero(np.isin(self.machine_of, members))
        return jobs if len(jobs) <= most else np.sort(random.permutation(jobs)[:most])

    def rooms(self, members: Ints, free: Ints, makespan: int) -> list[int]:
        """Weight that each member may take of the free jobs, `[members]`."""
        problem = self.problem
        held = np.isin(self.machine_of, members)
        held[free] = False
        stays = np.zeros(problem.machines, dtype=np.int64)
        np.add.at(stays, self.machine_of[held], problem.weights[held])
        return [int(room) for room in makespan + problem.allowances[members] - stays[members]]

    def place(self, free: Ints, machine_of: Assignment) -> None:
        """Move jobs to the machines given for them."""
        jobs = self.problem.jobs[free]
        np.subtract.at(self.loads, self.machine_of[free], jobs)
        np.add.at(self.loads, machine_of, jobs)
        self.machine_of[free] = machine_of
