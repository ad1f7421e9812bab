"""Filling one machine after another as full as the makespan allows, by subset sums.

The construction of bin-packing heuristics with a subset-sum step (Caprara & Pferschy 2004,
"Worst-case analysis of the subset sum algorithm for bin packing"): the longest job left, and the
heaviest subset of a random choice of the others that fits beside it.
"""

import numpy as np

from solver.partition.problem import PartitionProblem
from solver.partition.subset_sum import chosen, heaviest
from solver.problem import Assignment

OFFERED = 20
"""Jobs among which the companions of a machine's longest job are sought."""


def fill(
    problem: PartitionProblem, makespan: int, unfilled: int, random: np.random.Generator
) -> Assignment:
    """A partition with all machines but the last `unfilled` filled, `[jobs]`.

    The last ones share what is left, longest first; they may be above the makespan.
    """
    machine_of = np.full(len(problem.jobs), -1, dtype=np.int64)
    left = problem.longest_first
    order = random.permutation(problem.machines)
    for machine in order[: problem.machines - unfilled]:
        room = makespan + int(problem.allowances[machine])
        if not len(left) or problem.weights[left[0]] > room:
            continue
        longest, others = left[0], left[1:]
        offered = random.permutation(others)[:OFFERED]
        machine_of[longest] = machine
        found = heaviest(problem.weights[offered], room - int(problem.weights[longest]))
        if found is not None:
            machine_of[offered[chosen(found[1], len(offered))]] = machine
        left = others[machine_of[others] < 0]
    _spread(problem, machine_of, left)
    return machine_of


def _spread(problem: PartitionProblem, machine_of: Assignment, left: Assignment) -> None:
    """The jobs left, longest first, each to the machine with most room."""
    placed = machine_of >= 0
    rooms = problem.allowances.copy()
    np.subtract.at(rooms, machine_of[placed], problem.weights[placed])
    for job in left:
        machine = int(rooms.argmax())
        machine_of[job] = machine
        rooms[machine] -= problem.weights[job]
