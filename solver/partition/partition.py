"""Jobs onto identical machines so that the largest load is least, with a proof: P||Cmax.

Bounds and a greedy partition at once; then, while the two differ, local search by subset sums and
column generation take turns, the one lowering the makespan and the other raising the bound; CP-SAT
takes what is left. The best partition and bound are kept whatever the deadline.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from solver.partition.bounds import lower_bounds
from solver.partition.columns import ColumnGeneration
from solver.partition.greedy import longest_processing_time
from solver.partition.problem import PartitionProblem
from solver.partition.record import Record
from solver.partition.search import Search
from solver.placement.exact import Deadline
from solver.problem import Ints

STEPS = 10
"""Steps of column generation in vain before the search has its turn."""

CP_SAT_VARIABLES = 10_000
"""Sizes times machines above which CP-SAT would not get far."""

TURNS = 40
"""Turns of the search for each of the seconds that CP-SAT is to have next."""

CP_SAT_LEFT_S = 1.0
"""Time that must be left for CP-SAT: it takes half a second to load."""


@dataclass(frozen=True, eq=False)
class Partition:
    """machine_of [jobs]; no partition has a makespan below `lower_bound`, and `proof` says why."""

    machine_of: Ints
    makespan: int
    lower_bound: int
    proof: str


def partition(
    jobs: Ints,
    machines: int,
    deadline: Deadline,
    *,
    counts: Ints | None = None,
    start: Ints | None = None,
    gap: float = 0.0,
    workers: int = 1,
    seed: int = 0,
    on_improve: Callable[[int, int], None] | None = None,
) -> Partition:
    """Partition `jobs [jobs]` with `counts [machines]` jobs each where given.

    Ends once lower_bound >= makespan * (1 - gap), at the deadline or when cancelled. `start [jobs]`
    is a partition to improve on; `on_improve(makespan, lower_bound)` hears of each better one and
    each better bound.
    """
    if not 0 <= gap < 1:
        raise ValueError(f"gap is {gap}, must be at least 0 and below 1")
    problem = PartitionProblem(
        np.asarray(jobs, dtype=np.int64),
        machines,
        None if counts is None else np.asarray(counts, dtype=np.int64),
    )
    if not len(problem.jobs):
        return Partition(np.zeros(0, dtype=np.int64), 0, 0, "mean load")
    record = Record(problem, longest_processing_time(problem), gap, on_improve)
    if start is not None:
        record.offer(problem.checked(np.asarray(start, dtype=np.int64)))
    for bound, proof in lower_bounds(problem):
        record.raise_bound(bound, proof)
    _close(record, np.random.default_rng(seed), workers, seed, deadline)
    return Partition(record.machine_of, record.makespan, record.lower_bound, record.proof)


def _close(
    record: Record, random: np.random.Generator, workers: int, seed: int, deadline: Deadline
) -> None:
    """Search, column generation and then CP-SAT in turns until the gap is closed."""
    search = Search(record, random)
    columns: ColumnGeneration | None = None
    turns, effort = 0, 0.5
    while not record.closed and deadline.left_s > 0:
        search.turn(deadline)
        columns = columns or ColumnGeneration(record)
        if not columns.finished:
            _raise_bound(record, columns, deadline)
            continue
        # What the bound leaves open is CP-SAT's, ever longer, once the search has had its chance.
        turns += 1
        if turns >= TURNS * effort and _suits_cp_sat(record) and deadline.left_s > CP_SAT_LEFT_S:
            # Imported where first needed: OR-tools takes half a second.
            from solver.partition.cp_sat import raise_and_lower

            raise_and_lower(record, effort, workers, seed, deadline)
            effort *= 2


def _raise_bound(record: Record, columns: ColumnGeneration, deadline: Deadline) -> None:
    """Steps of column generation for as long as the bound keeps rising."""
    in_vain = 0
    while in_vain < STEPS and not (columns.finished or record.closed or deadline.left_s <= 0):
        before = record.lower_bound
        columns.step(deadline)
        in_vain = 0 if record.lower_bound > before else in_vain + 1


def _suits_cp_sat(record: Record) -> bool:
    sizes = len(np.unique(record.problem.jobs))
    return sizes * record.problem.machines <= CP_SAT_VARIABLES
