"""What the partition tests share: the optimum by trying everything, and counts of jobs."""

import itertools

import numpy as np

from solver.problem import Ints


def optimum(jobs: list[int], machines: int, counts: list[int] | None = None) -> int:
    """The least makespan, by trying every assignment."""
    best = sum(jobs)
    for machine_of in itertools.product(range(machines), repeat=len(jobs)):
        if counts is not None and [machine_of.count(m) for m in range(machines)] != counts:
            continue
        loads = [0] * machines
        for job, machine in zip(jobs, machine_of, strict=True):
            loads[machine] += job
        best = min(best, max(loads))
    return best


def equal_counts(jobs: int, machines: int) -> list[int]:
    return [jobs // machines + (m < jobs % machines) for m in range(machines)]


def ints(values: list[int] | None) -> Ints | None:
    return None if values is None else np.array(values, dtype=np.int64)
