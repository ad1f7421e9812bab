"""Bounds first, then a quick placement, then search where the gap is above the tolerance.

Layers are independent, but for the worst case over several workloads. Whatever the deadline, every
layer has shares and a bound: the quick placement is made before any search and held outside the
solvers, which can only improve on it.
"""

import os
import time
from dataclasses import dataclass, field, replace
from threading import Event, Lock

import numpy as np

from solver.deadline import Deadline, Effort
from solver.problem import PlacementProblem
from solver.request import Method, Objective
from solver.search.driver import Board, OnProgress, search
from solver.search.starts import start, within
from solver.search.steps import steps_of
from solver.solution import LayerSolution, Solution

SEARCHING: tuple[Method, ...] = ("auto", "cp_sat", "ilp")
MOST_WORKERS = 8
WORST_OPEN = "every layer is proved, but no choice of placements was found that meets the bound"
SEEDED_UNITS = 0.3
"""Of the time limit: units of counted work (about a second each) that a seeded search shares."""

WHOLE_SHARE = 0.25
"""Of the time limit for quick placements of whole heads that are to be divided."""


@dataclass(frozen=True, eq=False)
class Search:
    """How to search: method, when to stop, whom to tell, and how repeatable it must be."""

    method: Method = "auto"
    tolerance: float = 1e-3
    time_limit_s: float = 10.0
    objective: Objective = "mean"
    node_size: int | None = None
    seed: int | None = None
    on_progress: OnProgress | None = None
    cancelled: Event = field(default_factory=Event)

    def deadline(self) -> Deadline:
        """The time limit from now."""
        return Deadline(time.monotonic() + self.time_limit_s, self.cancelled)


def solve(problem: PlacementProblem, how: Search) -> Solution:
    """Share out every layer's items; see the module for what each method may do."""
    deadline = how.deadline()
    searching = how.method in SEARCHING
    if how.objective == "worst" and problem.workloads > 1 and searching:
        from solver.search.worst_case import worst_case

        # The layers' own gaps are only half of what lies between the worst case and its bound.
        quietly = replace(how, on_progress=None, tolerance=how.tolerance / 2)
        solution = worst_case(
            problem,
            lambda weighed, until: solve_layers(weighed, quietly, until),
            how.tolerance,
            deadline,
            how.on_progress,
        )
    else:
        if how.objective == "worst":
            # Any weights prove a bound of the worst case; a heuristic places by equal ones.
            problem = problem.weighing(np.full(problem.workloads, 1 / problem.workloads))
        layers = solve_layers(problem, how, deadline)
        bound_s = float(sum(layer.bound.seconds for layer in layers))
        solution = Solution(layers, bound_s, problem.weights)
    return Solution(
        solution.layers,
        solution.lower_bound_s,
        solution.multipliers,
        _reason(solution.layers, how, deadline),
    )


def solve_layers(problem: PlacementProblem, how: Search, deadline: Deadline) -> list[LayerSolution]:
    """Every layer for the weighted mean of the workloads; alike layers are solved once."""
    alike = _first_alike(problem)
    layers = {index: problem.layer(index) for index in sorted(set(alike))}
    # Where heads are divided, whole placements are only what is fallen back on.
    quickly = deadline.within(WHOLE_SHARE * deadline.left_s) if problem.divisible else deadline
    quick = start(list(layers.values()), how.method, how.tolerance, quickly)
    solved = dict(zip(layers, quick, strict=True))
    weight = {index: alike.count(index) for index in layers}
    board = Board(solved, weight, how.tolerance, how.on_progress, Lock())
    if how.on_progress is not None:
        how.on_progress(board.progress())
    if problem.divisible:
        from solver.search.divided import divide_layers

        divide_layers(
            layers, board, how.node_size, deadline, _workers(how), by_clock=how.seed is None
        )
    elif how.method in SEARCHING and not within(quick, how.tolerance):
        units = SEEDED_UNITS * how.time_limit_s / max(len(board.open()), 1)
        effort = Effort(_workers(how), how.seed, units)
        steps = steps_of(how.method, how.tolerance, effort)
        search(layers, board, steps, deadline, _workers(how), by_clock=how.seed is None)
    return [board.solved[first] for first in alike]


def _workers(how: Search) -> int:
    return 1 if how.seed is not None else min(MOST_WORKERS, os.cpu_count() or 1)


def _first_alike(problem: PlacementProblem) -> list[int]:
    """For every layer the first layer with the same costs."""
    first: dict[bytes, int] = {}
    costs = [problem.head_s, problem.part_s, problem.group_s]
    return [
        first.setdefault(b"".join(array[:, i].tobytes() for array in costs), i)
        for i in range(problem.layers)
    ]


def _reason(layers: list[LayerSolution], how: Search, deadline: Deadline) -> str | None:
    """Why a plan of a searching method is not proved, or None if every layer is."""
    if how.method not in SEARCHING:
        return None
    unproved = [layer for layer in layers if layer.gap > how.tolerance]
    if not unproved:
        return None if how.objective == "mean" else WORST_OPEN
    end = "was cancelled" if deadline.cancelled.is_set() else "ended"
    if how.seed is not None and deadline.left_s <= 0:
        end += " (by the clock, so that the seed may not repeat it)"
    words = (
        f"{len(unproved)} of {len(layers)} layers are not proved within the tolerance when the "
        f"search {end}"
    )
    if how.method == "auto":
        return words
    kept = sum(not layer.searched for layer in unproved)
    return f"{words}; in {kept} of them {how.method} found nothing better than its quick start"
