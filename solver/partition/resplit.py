"""Dividing the jobs of a few machines among them anew, by subset sums.

Two machines: the most even division of what they hold. More: one machine after another takes a
subset that leaves the others no more than they can hold: sequential number partitioning, Korf,
Schreiber & Moffitt 2014, "Optimal sequential multi-way number partitioning", on a random choice of
the subsets.
"""

from collections.abc import Sequence

import numpy as np

from solver.partition.machines import Machines
from solver.partition.subset_sum import MOST_JOBS, between, chosen, nearest
from solver.placement.exact import Deadline
from solver.problem import Assignment, Ints

SHUFFLED = 18
"""Jobs that change places in a random division of two machines."""

WIDTH = 3
"""Subsets tried for a machine before the next machine's are chosen."""


def even_out(machines: Machines, first: int, second: int, random: np.random.Generator) -> bool:
    """Divide two machines' jobs as evenly as can be; whether that lowers the larger load."""
    members = np.array([first, second])
    free = machines.free_jobs(members, MOST_JOBS, random)
    both = int(machines.loads[members].sum())
    half = both // 2
    room, _ = machines.rooms(members, free, half)
    reached, bits = nearest(machines.problem.weights[free], room)
    load = half + reached - room
    if max(load, both - load) >= machines.loads[members].max():
        return False
    machines.place(free, np.where(chosen(bits, len(free)), first, second))
    return True


def resplit(
    machines: Machines,
    members: Ints,
    makespan: int,
    random: np.random.Generator,
    deadline: Deadline,
) -> bool:
    """Divide the members' jobs so that none is above `makespan`; whether that was found."""
    free = machines.free_jobs(members, MOST_JOBS, random)
    rooms = machines.rooms(members, free, makespan)
    if min(rooms) < 0:
        return False
    division = _divide(machines.problem.weights[free], rooms, random, deadline)
    if division is None:
        return False
    machines.place(free, members[division])
    return True


def _divide(
    weights: Ints, rooms: Sequence[int], random: np.random.Generator, deadline: Deadline
) -> Assignment | None:
    """A machine's position for every job, `[jobs]`, no machine above its room; or None."""
    total = int(weights.sum())
    if total > sum(rooms):
        return None
    if len(rooms) == 1:
        return np.zeros(len(weights), dtype=np.int64)
    if len(rooms) == 2:
        least, most = total - rooms[1], rooms[0]
        reached, bits = nearest(weights, (least + most) // 2)
        within = least <= reached <= most
        return np.where(chosen(bits, len(weights)), 0, 1) if within else None
    for bits in between(weights, total - sum(rooms[1:]), rooms[0], WIDTH, random):
        taken = chosen(bits, len(weights))
        rest = _divide(weights[~taken], rooms[1:], random, deadline)
        if rest is not None:
            division = np.zeros(len(weights), dtype=np.int64)
            division[~taken] = rest + 1
            return division
        if deadline.left_s <= 0:
            return None
    return None


def shuffle(machines: Machines, goal: int, random: np.random.Generator) -> None:
    """Divide two machines' jobs at random, neither above the goal nor above the larger before."""
    fullest = int(machines.loads.argmax())
    others = np.array([m for m in range(machines.problem.machines) if m != fullest])
    if len(others) < 2:
        return
    members = random.permutation(others)[:2]
    free = machines.free_jobs(members, SHUFFLED, random)
    makespan = min(max(goal, int(machines.loads[members].max())), machines.makespan)
    room, other_room = machines.rooms(members, free, makespan)
    weights = machines.problem.weights[free]
    for bits in between(weights, int(weights.sum()) - other_room, room, 1, random):
        machines.place(free, members[np.where(chosen(bits, len(free)), 0, 1)])
