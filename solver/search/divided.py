"""Divided placements of every layer: cut what the quick whole placement leaves open.

The whole placements are kept beside the divided ones: rounded to query blocks, a divided layer of
a short context can end up worse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf

from solver.bounds import quick_bound
from solver.deadline import Deadline, Effort
from solver.divide.divided_bounds import divided_bound
from solver.divide.even_cut import even_cut
from solver.divide.over_nodes import over_nodes
from solver.divide.wrap_around import blend, wrap_around
from solver.heuristics.contiguous import contiguous
from solver.problem import LayerProblem
from solver.request import Method
from solver.search.driver import LAST_SHARES, Board, Stage, Tell, search
from solver.search.starts import start
from solver.search.steps import Fillings, descend_from_starts
from solver.shares import Shares
from solver.solution import Bound, LayerSolution

MOST_FILLED = 64
"""Devices up to which the configuration program is asked for a bound: of more it comes too late."""


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

    Every layer is cut evenly, whatever the deadline; then wrapped around, milliseconds a layer.
    """
    for index, layer in layers.items():
        quick = board.solved[index]
        board.improve(index, replace(quick, whole=quick.assignment))
        board.improve(index, _sharing(layer, quick, even_cut(layer)))
    proved: dict[int, Bound] = {}
    for place, (index, layer) in enumerate(layers.items()):
        share = deadline.within(deadline.left_s / (len(layers) - place)) if by_clock else deadline
        if share.left_s > 0:
            proved[index] = divided_bound(layer)
            quick = board.solved[index]
            board.improve(index, wrapped(layer, quick, proved[index], node_size, share))

    def cut(
        layer: LayerProblem,
        known: LayerSolution,
        until: Deadline,
        _: Tell,
        *,
        search: bool = True,
    ) -> LayerSolution:
        from solver.divide.divide import divide

        assert known.whole is not None  # set above
        tolerance = board.tolerance
        return divide(layer, known.whole, known.bound, tolerance, until, node_size, search=search)

    def improve_whole(
        layer: LayerProblem, known: LayerSolution, until: Deadline, tell: Tell
    ) -> LayerSolution:
        assert known.whole is not None  # set above
        if quick_bound(replace(layer, divisible=False)).seconds >= known.makespan_s:
            return known  # no whole placement is as short
        whole = replace(known, shares=layer.whole(known.whole), makespan_s=inf)
        better = descend_from_starts(layer, whole, until, tell)
        better = fillings.resplit(layer, better, until)
        return replace(better, whole=better.assignment)

    def prove(
        layer: LayerProblem, known: LayerSolution, until: Deadline, tell: Tell
    ) -> LayerSolution:
        return known if layer.devices > MOST_FILLED else fillings.prove(layer, known, until, tell)

    fillings = Fillings(board.tolerance, Effort(seed=None if by_clock else 0))
    # Every layer is cut quickly before any is cut well.
    quickly, well = Stage(partial(cut, search=False), 0.5), Stage(cut, LAST_SHARES)
    steps = [quickly, Stage(improve_whole, 0.5), Stage(prove, 0.5), well]
    if node_size is not None:
        steps = [well]
    search(layers, board, steps, deadline, workers, by_clock=by_clock)
    # Only now: a layer whose bound is met is not searched for fewer copies either.
    for index, bound in proved.items():
        board.improve(index, board.solved[index].prove(bound.seconds, bound.proof))


def quick_makespan_s(
    layers: Sequence[LayerProblem], method: Method, tolerance: float, deadline: Deadline
) -> float:
    """Of all layers together what starts and, where heads are divided, cutting alone reach.

    Without a search; by the clock only where the deadline is reached.
    """
    quick = start(layers, method, tolerance, deadline)
    return sum(
        min(found.makespan_s, _cut_s(layer, deadline)) if layer.divisible else found.makespan_s
        for layer, found in zip(layers, quick, strict=True)
    )


def _cut_s(layer: LayerProblem, deadline: Deadline) -> float:
    """The makespan that cutting alone reaches; infinite where nothing may be cut."""
    known = LayerSolution(layer.whole(contiguous(layer)), inf, quick_bound(layer))
    cut = _sharing(layer, known, even_cut(layer))
    if deadline.left_s <= 0:
        return cut.makespan_s
    bound = divided_bound(layer)
    return min(cut.makespan_s, wrapped(layer, known, bound, None, deadline).makespan_s)


def wrapped(
    layer: LayerProblem,
    known: LayerSolution,
    bound: Bound,
    node_size: int | None,
    deadline: Deadline,
) -> LayerSolution:
    """The layer wrapped around, at whatever makespan; `known` if it fails."""
    least_s = bound.seconds if layer.workloads == 1 else divided_bound(blend(layer)).seconds
    if node_size is None:
        shares = wrap_around(layer, deadline, least_s)
    else:
        shares = over_nodes(layer, node_size, deadline, least_s)
    return _sharing(layer, known, shares)


def _sharing(layer: LayerProblem, known: LayerSolution, shares: Shares | None) -> LayerSolution:
    """The solution with other shares, where there are any and they obey the rules."""
    if shares is None or not layer.allows_shares(shares):
        return known
    return replace(known, shares=shares, makespan_s=layer.objective(layer.loads_of_shares(shares)))
