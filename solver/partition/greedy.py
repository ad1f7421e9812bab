"""Longest processing time first: Graham 1969, "Bounds on multiprocessing timing anomalies"."""

import heapq

import numpy as np

from solver.partition.problem import PartitionProblem
from solver.problem import Assignment


def longest_processing_time(problem: PartitionProblem) -> Assignment:
    """Every job, longest first, to the least loaded machine that may still take one, `[jobs]`."""
    machine_of = np.zeros(len(problem.jobs), dtype=np.int64)
    counts = problem.counts
    most = [len(problem.jobs)] * problem.machines if counts is None else counts.tolist()
    lightest = [(0, machine) for machine in range(problem.machines) if most[machine]]
    for job in problem.longest_first:
        load, machine = heapq.heappop(lightest)
        machine_of[job] = machine
        most[machine] -= 1
        if most[machine]:
            heapq.heappush(lightest, (load + int(problem.jobs[job]), machine))
    return machine_of
