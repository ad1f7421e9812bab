"""Divided placements of every layer: cut what the quick whole placement leaves open.

The whole placements are kept beside the divided ones: rounded to query blocks, a divided layer of
a short context can end up worse.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from math import inf

from solver.divide.nodes import over_nodes
from solver.divide.wrap_around import wrap_around
from solver.placement.exact import Deadline
from solver.problem import Assignment, LayerProblem
from solver.refine import descended, proved
from solver.search import LAST_SHARES, Board, Step, Tell, search
from solver.solution import LayerSolution

WRAPS_S = 0.1
"""Seconds that the wrap-around of all layers may take beyond a deadline that leaves none."""


def divide_layers(
    layers: Mapping[int, LayerProblem],
    board: Board,
    node_size: int | None,
    deadline: Deadline,
    workers: int,
    *,
    by_clock: bool,
) -> None:
    """Divide the heads of every layer on `board` until the tolerance or the deadline.

    The wrap-around comes first, milliseconds a layer and hardly later than the deadline.
    """
    wholes: dict[int, Assignment] = {i: known.assignment for i, known in board.solved.items()}
    wrap_by = Deadline(max(deadline.at, time.monotonic() + WRAPS_S), deadline.cancelled)
    for index, layer in layers.items():
        if layer.identical:
            board.improve(index, _wrapped(layer, board.solved[index], node_size, wrap_by))
    index_of = {id(layer): index for index, layer in layers.items()}

    def cut(layer: LayerProblem, known: LayerSolution, until: Deadline, _: Tell) -> LayerSolution:
        from solver.divide.divide import divide

        whole = wholes[index_of[id(layer)]]
        return divide(layer, whole, known.bound, board.tolerance, until, node_size)

    def improve_whole(
        layer: LayerProblem, known: LayerSolution, until: Deadline, _: Tell
    ) -> LayerSolution:
        index = index_of[id(layer)]
        start = replace(known, shares=layer.whole(wholes[index]), makespan_s=inf)
        better = descended(layer, start, until, _)
        wholes[index] = better.assignment
        return better

    def prove(layer: LayerProblem, known: LayerSolution, until: Deadline, _: Tell) -> LayerSolution:
        return proved(layer, known, board.tolerance, until)

    # Every layer is cut quickly before any is cut well.
    steps = [Step(cut, 0.5), Step(improve_whole), Step(prove), Step(cut, LAST_SHARES)]
    if node_size is not None:
        steps = [steps[0], steps[-1]]
    search(layers, board, steps, deadline, workers, by_clock=by_clock)
    for index, found in board.solved.items():
        board.solved[index] = replace(found, whole=wholes[index])


def _wrapped(
    layer: LayerProblem, known: LayerSolution, node_size: int | None, deadline: Deadline
) -> LayerSolution:
    least_s = known.bound.seconds
    if node_size is None:
        shares = wrap_around(layer, deadline, least_s)
    else:
        shares = over_nodes(layer, node_size, deadline, least_s)
    most = layer.max_copies or layer.devices
    if shares is None or ((shares > 0).sum(axis=1) > most).any():
        return known
    return replace(known, shares=shares, makespan_s=layer.objective(layer.loads_of_shares(shares)))
