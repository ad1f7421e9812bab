"""The least worst case over several workloads: minimise the largest of their plan makespans.

Layers are coupled only through this maximum. For multipliers (weights of the workloads that add up
to 1) the weighted mean separates by layer, and its bound is a bound of the worst case: Lagrangian
relaxation (Geoffrion, Mathematical Programming Study 2, 1974). The next multipliers are the duals
of the linear program over the placements found so far (Dantzig and Wolfe, Operations Research 8,
1960); where they do not raise the bound, the next try is halfway back to the best ones (Wentges,
International Transactions in Operational Research 4, 1997).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from solver.deadline import Deadline
from solver.heuristics.contiguous import contiguous
from solver.problem import PlacementProblem
from solver.search.choice import Choice, Placements, chosen, descended, relaxed, worst_s
from solver.shares import Floats
from solver.solution import LayerSolution, Progress, Solution

SolveMean = Callable[[PlacementProblem, Deadline], list[LayerSolution]]
"""Places every layer for the weighted mean, with bounds; at once if the deadline has come."""

MOST_ROUNDS = 60
SHORTEST_STEP = 1 / 16
"""From the best multipliers towards the duals; where shorter steps fail too, that was it."""

TURN_SHARE = 0.5
"""Of the rounds' time that is left: what the next one may take."""

CHOICE_SHARE = 0.15
"""Of the time: kept for choosing among the placements found."""


@dataclass(frozen=True, eq=False)
class Dual:
    """The layers solved for one weighted mean: their bounds add up to one of the worst case."""

    multipliers: Floats
    layers: Sequence[LayerSolution]

    @cached_property
    def bound_s(self) -> float:
        return float(sum(layer.bound.seconds for layer in self.layers))

    def proves(self, seconds: float, tolerance: float) -> bool:
        """Whether the bound is within the tolerance of `seconds`."""
        return self.bound_s >= (1 - tolerance) * seconds


def worst_case(
    problem: PlacementProblem,
    solve_mean: SolveMean,
    tolerance: float,
    deadline: Deadline,
    on_progress: Callable[[Progress], None] | None = None,
) -> Solution:
    """Place all layers for the least largest plan makespan; `problem.weights` say nothing here.

    The layers come back stated under the multipliers that prove the bound, which is as tight as
    `solve_mean` proves: it should work to half of `tolerance`.
    """
    pool = Placements([problem.layer(index) for index in range(problem.layers)])
    choice = [pool.add(i, layer.whole(contiguous(layer))) for i, layer in enumerate(pool.layers)]
    target = np.full(problem.workloads, 1 / problem.workloads)
    best, step = Dual(target, []), 1.0
    rounds = deadline.within((1 - CHOICE_SHARE) * deadline.left_s)
    for _ in range(MOST_ROUNDS):
        multipliers = best.multipliers + step * (target - best.multipliers)
        turn = rounds if problem.workloads == 1 else rounds.within(TURN_SHARE * rounds.left_s)
        dual = Dual(multipliers, solve_mean(problem.weighing(multipliers), turn))
        raised = dual.bound_s > best.bound_s or not best.layers
        best, step = (dual, 1.0) if raised else (best, step / 2)
        found = [pool.add(i, s.shares, searched=s.searched) for i, s in enumerate(dual.layers)]
        mixed = relaxed(pool, rounds)
        starts = [choice, found, mixed.rounded] if mixed else [choice, found]
        choice = min((descended(pool, start, deadline) for start in starts), key=worst_s)
        if on_progress is not None:
            on_progress(_progress(choice, best, tolerance))
        if best.proves(worst_s(choice), tolerance) or problem.workloads == 1:
            return _stated(choice, best)
        if mixed is None or best.proves(mixed.value_s, tolerance / 10):
            break
        if rounds.left_s <= 0 or step < SHORTEST_STEP:
            break
        target = mixed.multipliers
    enough_s = best.bound_s / (1 - tolerance)
    return _stated(chosen(pool, choice, enough_s, tolerance / 4, deadline), best)


def _progress(choice: Choice, best: Dual, tolerance: float) -> Progress:
    """A layer is settled where its own part of the bound is within the tolerance."""
    solution = _stated(choice, best)
    settled = sum(layer.gap <= tolerance for layer in solution.layers)
    return Progress(settled, len(choice), worst_s(choice), solution.lower_bound_s)


def _stated(choice: Choice, best: Dual) -> Solution:
    """The plan with makespans and bounds under the best multipliers."""
    layers = []
    for option, proved in zip(choice, best.layers, strict=True):
        makespan_s = float(best.multipliers @ option.makespans_s)
        bound = replace(proved.bound, seconds=min(proved.bound.seconds, makespan_s))
        layers.append(LayerSolution(option.shares, makespan_s, bound, option.searched))
    bound_s = float(sum(layer.bound.seconds for layer in layers))
    return Solution(layers, bound_s, best.multipliers)
