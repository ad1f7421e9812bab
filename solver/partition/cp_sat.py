"""The partition as a constraint program, solved by OR-tools' CP-SAT.

A variable says how many jobs of a size a machine gets, so that equal jobs are one. Machines of one
count are alike: their loads are put in falling order.
"""

import math

import numpy as np
from ortools.sat.python import cp_model

from solver.partition.record import Record
from solver.placement.exact import Deadline, stopping
from solver.problem import Assignment, Ints

PROOF = "cp_sat"


def raise_and_lower(
    record: Record, effort: float, workers: int, seed: int, deadline: Deadline
) -> None:
    """Search between the record's bound and its makespan for `effort`, CP-SAT's own seconds.

    Those don't depend on the machine, so that one worker finds the same again.
    """
    model, placed = _model(record)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    solver.parameters.max_time_in_seconds = deadline.left_s
    solver.parameters.max_deterministic_time = effort
    solver.parameters.catch_sigint_signal = False
    with stopping(deadline.cancelled, solver.stop_search):
        status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        record.raise_bound(record.makespan, PROOF)
        return
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        record.offer(_machine_of(record, placed, solver))
    if status != cp_model.MODEL_INVALID:
        record.raise_bound(math.ceil(solver.best_objective_bound - 1e-6), PROOF)


Placed = list[list[cp_model.IntVar]]


def _model(record: Record) -> tuple[cp_model.CpModel, Placed]:
    """Variables `placed[size][machine]` for a makespan below the record's."""
    problem = record.problem
    sizes, copies = np.unique(problem.jobs, return_counts=True)
    machines = range(problem.machines)
    model = cp_model.CpModel()
    placed: Placed = [
        [model.new_int_var(0, int(n), f"x_{size}_{m}") for m in machines]
        for size, n in zip(sizes, copies, strict=True)
    ]
    for row, n in zip(placed, copies, strict=True):
        model.add(sum(row) == int(n))
    makespan = model.new_int_var(record.lower_bound, record.makespan - 1, "makespan")
    loads = [
        sum(int(size) * row[m] for size, row in zip(sizes, placed, strict=True)) for m in machines
    ]
    for m in machines:
        model.add(loads[m] <= makespan)
        if problem.counts is not None:
            model.add(sum(row[m] for row in placed) == int(problem.counts[m]))
        if m and (problem.counts is None or problem.counts[m - 1] == problem.counts[m]):
            model.add(loads[m - 1] >= loads[m])
    model.minimize(makespan)
    return model, placed


def _machine_of(record: Record, placed: Placed, solver: cp_model.CpSolver) -> Assignment:
    """A machine for every job, equal jobs in their order, `[jobs]`."""
    jobs: Ints = record.problem.jobs
    machine_of = np.zeros(len(jobs), dtype=np.int64)
    for size, row in zip(np.unique(jobs), placed, strict=True):
        per_machine = [solver.value(variable) for variable in row]
        machine_of[jobs == size] = np.repeat(np.arange(len(row)), per_machine)
    return machine_of
