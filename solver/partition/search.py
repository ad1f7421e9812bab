"""Iterated local search on the machines that are too full.

Descent: the fullest machine shares its jobs evenly with another until no pair improves. Then
three to six machines are divided anew to stay below the goal, while pairs with nothing to
gain are shuffled in between. A search that gets nowhere starts again, from machines filled one by
one and from its best with a few jobs thrown about in turn (Lourenco, Martin & Stutzle 2003).
"""

from collections.abc import Iterator

import numpy as np

from solver.partition.fill import fill
from solver.partition.machines import Machines
from solver.partition.record import Record
from solver.partition.resplit import even_out, resplit, shuffle
from solver.partition.subset_sum import MOST_JOBS
from solver.placement.exact import Deadline
from solver.problem import Ints

FEWEST, MOST = 3, 6
"""Machines whose jobs are divided anew; above `FEWEST` only if all their jobs may move."""

PATIENCE = 60
"""Divisions tried in vain before a new start."""

MOST_UNFILLED = 3
"""Machines left to share the rest when the others are filled one by one."""

DISTURBED = 3
"""Pairs of jobs that change places in the best partition to start from there again."""


def descend(machines: Machines, goal: int, random: np.random.Generator, deadline: Deadline) -> None:
    """Even out the fullest machine with others, the least loaded first, while it helps."""
    while machines.makespan > goal:
        fullest = int(machines.loads.argmax())
        others = (int(o) for o in np.argsort(machines.loads, kind="stable") if o != fullest)
        if not any(_evened(machines, fullest, o, random, deadline) for o in others):
            return


def _evened(
    machines: Machines, fullest: int, other: int, random: np.random.Generator, deadline: Deadline
) -> bool:
    return deadline.left_s > 0 and even_out(machines, fullest, other, random)


class Search:
    """A local search that goes on improving a record, one starting point a turn."""

    def __init__(self, record: Record, random: np.random.Generator) -> None:
        self._record = record
        self._random = random
        self._turns = 0

    def turn(self, deadline: Deadline) -> None:
        """Search from the next starting point until patience ends; the first is the record's."""
        record, random = self._record, self._random
        machines = self._start()
        self._turns += 1
        for _ in _improvements(machines, record.goal, random, deadline):
            record.offer(machines.machine_of)

    def _start(self) -> Machines:
        problem, random = self._record.problem, self._random
        machines = Machines(problem, self._record.machine_of)
        if self._turns % 2:
            unfilled = int(random.integers(1, min(problem.machines, MOST_UNFILLED) + 1))
            return Machines(problem, fill(problem, self._record.goal, unfilled, random))
        if self._turns:
            for _ in range(DISTURBED):
                pair = random.integers(0, len(problem.jobs), 2)
                machines.place(pair, machines.machine_of[pair[::-1]])
        return machines


def _improvements(
    machines: Machines, goal: int, random: np.random.Generator, deadline: Deadline
) -> Iterator[None]:
    """Yields whenever the partition may have become better, until patience ends."""
    descend(machines, goal, random, deadline)
    yield
    if machines.problem.machines == 2:
        return
    failures = 0
    while machines.makespan > goal and failures < PATIENCE and deadline.left_s > 0:
        if _relieve(machines, goal, random, deadline):
            failures = 0
            descend(machines, goal, random, deadline)
            yield
        else:
            failures += 1
            shuffle(machines, goal, random)


def _relieve(
    machines: Machines, goal: int, random: np.random.Generator, deadline: Deadline
) -> bool:
    """Divide the fullest machine's jobs and some others' anew; whether it is below before."""
    members = _members(machines, random)
    fullest = machines.makespan
    mean = -(-int(machines.loads[members].sum()) // len(members))
    targets = sorted({max(goal, mean), fullest - 1})
    return any(
        mean <= target < fullest and resplit(machines, members, target, random, deadline)
        for target in targets
    )


def _members(machines: Machines, random: np.random.Generator) -> Ints:
    """The fullest machine and some others, the least loaded or any: as many as can be searched."""
    problem = machines.problem
    others = random.permutation(problem.machines)
    fullest = int(machines.loads.argmax())
    others = others[others != fullest]
    if random.random() < 0.5:
        others = others[np.argsort(machines.loads[others], kind="stable")]
    fitting = MOST_JOBS * problem.machines // len(problem.jobs)
    most = max(FEWEST, min(fitting, MOST))
    return np.array([fullest, *others[: int(random.integers(FEWEST, most + 1)) - 1]])
