"""Asking CP-SAT whether something can be done, and how."""

from collections.abc import Callable
from dataclasses import dataclass

from ortools.sat.python import cp_model

from solver.placement.exact import Deadline, Effort, stopping
from solver.problem import Ints

Value = Callable[[cp_model.IntVar], int]


@dataclass(frozen=True, eq=False)
class Decided:
    """Counts [classes, devices] that do it, or none; `impossible` where that is proved."""

    counts: Ints | None
    impossible: bool


def decide(
    model: cp_model.CpModel,
    counts: Callable[[Value], Ints],
    deadline: Deadline,
    effort: Effort,
    *,
    presolve: bool,
) -> Decided:
    """Solve `model`, of which `counts` reads the answer."""
    solver = cp_model.CpSolver()
    solver.parameters.catch_sigint_signal = False
    solver.parameters.cp_model_presolve = presolve
    effort.limit(solver.parameters, deadline.left_s)
    with stopping(deadline.cancelled, solver.stop_search):
        status = solver.solve(model)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Decided(counts(solver.value), impossible=False)
    return Decided(None, impossible=status == cp_model.INFEASIBLE)
