"""Divided heads in whole query blocks: what the executors will run, and what is certified."""

import json
import time
from collections.abc import Sequence

import numpy as np

from solver.deadline import Deadline
from solver.planning.scenarios import Scenario
from solver.problem import Assignment, LayerProblem, PlacementProblem
from solver.rows import RowGrid, polish_rows, realise, realise_each
from solver.shares import Shares
from solver.solution import LayerSolution

POLISHED_PAIRS = 4096
"""Heads times devices of a layer up to which boundaries are shifted row by row."""

LITTLE = 1e-4
"""Rounding that costs less than this share of a layer's makespan is left as it is."""


FINISHING = 8.0
"""Rounding, figures, the plan's parts and its JSON take so many times as long as writing their
numbers alone."""

TRIED = 3
"""How often a layer's numbers are written to see how long that takes; the quickest counts."""


def finishing_s(problem: PlacementProblem) -> float:
    """Seconds to expect, on this machine, for what comes after the search."""
    costs = 3 * problem.heads * problem.head_s.shape[-1]
    # Filling device after device makes no more parts, each a device and a share.
    parts = problem.heads + problem.divisible * problem.devices
    numbers = np.linspace(0.1, 0.2, problem.workloads * (costs + problem.devices) + 2 * parts)
    written = numbers.tolist()
    seconds = []
    for _ in range(TRIED):
        began = time.perf_counter()
        json.dumps(written)
        seconds.append(time.perf_counter() - began)
    return FINISHING * problem.layers * min(seconds)


def rounded(
    problem: PlacementProblem,
    solutions: Sequence[LayerSolution],
    steps: Sequence[Scenario],
    deadline: Deadline,
    *,
    may_undo: bool,
) -> list[list[Shares]]:
    """The shares each workload realises, `[workloads][layers]`.

    `problem` is by head, as the solutions are. The first workload's are exactly in whole rows;
    they are what the plan states and the others round. With `may_undo` a layer that rounding makes
    worse than its whole placement is left undivided.
    """
    grids = [RowGrid.of(step.budgets.tokens, step.workload) for step in steps]
    realised: list[list[Shares]] = []
    for index, solution in enumerate(solutions):
        layer, stated = problem.layer(index), realise(solution.shares, grids[0], index)
        if stated.items * stated.devices <= POLISHED_PAIRS and deadline.left_s > 0:
            stated = _polished(layer, solution, grids, index, deadline)
        # The others round what the plan will state: the first workload's shares.
        each = [stated, *realise_each(stated, grids[1:], index)]
        if may_undo and solution.whole is not None:
            whole = [layer.whole(solution.whole)] * len(each)
            each = min(each, whole, key=lambda s: layer.objective(layer.loads_of_each(s)))
        realised.append(each)
    return [list(of_workload) for of_workload in zip(*realised, strict=True)]


def _polished(
    layer: LayerProblem,
    solution: LayerSolution,
    grids: Sequence[RowGrid],
    index: int,
    deadline: Deadline,
) -> Shares:
    """The first workload's shares, with boundaries shifted where plain rounding costs too much."""
    wanted = solution.shares
    after_s = layer.objective(layer.loads_of_each(realise_each(wanted, grids, index)))
    if after_s > layer.objective(layer.loads_of_shares(wanted)) * (1 + LITTLE):
        wanted = polish_rows(layer, wanted, grids, index, deadline)
    return realise(wanted, grids[0], index)


def undivided(
    problem: PlacementProblem, shares: list[list[Shares]], wholes: Sequence[Assignment]
) -> list[list[Shares]]:
    """`shares` [workloads][layers], or the whole placements `[layers]` if their worst is less.

    For the worst case over workloads, which no layer can judge alone.
    """
    layers = [problem.layer(index) for index in range(problem.layers)]
    whole = [layer.whole(w) for layer, w in zip(layers, wholes, strict=True)]

    def worst_s(each: list[list[Shares]]) -> float:
        return float(problem.loads_of_each(each).max(axis=2).sum(axis=1).max())

    return min(shares, [whole] * len(shares), key=worst_s)
