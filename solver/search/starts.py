"""Quick placements of every layer: milliseconds, held outside the exact searches, never lost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from solver.bounds import quick_bounds
from solver.deadline import Deadline
from solver.heuristics.contiguous import contiguous
from solver.heuristics.descent import descend
from solver.heuristics.greedy import charged, greedy, longest_first, room
from solver.heuristics.greedy_equal import greedy_equal
from solver.heuristics.multifit import multifit
from solver.heuristics.snake import snake
from solver.heuristics.within_slots import within_slots
from solver.problem import Assignment, LayerProblem, loads_of_layers
from solver.request import Method
from solver.solution import Bound, LayerSolution

AT_ONCE_PAIRS = 2**17
"""Of items and devices, over all layers: starts of so few are tried whatever time is left."""

Heuristic = Callable[[LayerProblem], Assignment]
HEURISTICS: dict[str, Heuristic] = {
    "contiguous": contiguous,
    "snake": snake,
    "greedy_equal": greedy_equal,
    "greedy": greedy,
}


def start(
    layers: Sequence[LayerProblem],
    method: Method,
    tolerance: float,
    deadline: Deadline,
    *,
    by_clock: bool = False,
) -> list[LayerSolution]:
    """The heuristic asked for; for the others the better of contiguous and greedy in every layer.

    `auto` tries all there are, those of large problems, or of any `by_clock`, while there is time,
    unless these two are within the tolerance, those of tighter rules included. Searches that start
    from both are never worse than the order of the file, whatever charged groups make of greedy.
    """
    if method in HEURISTICS and method != "greedy":
        heuristic = HEURISTICS[method]
        return _solutions(layers, [within_slots(heuristic, layer) for layer in layers])
    greedily = (
        longest_first(
            np.stack([layer.distinct(layer.blended_s) for layer in layers]), room(layers[0])
        )
        if layers[0].slots is None
        else [within_slots(greedy, layer) for layer in layers]
    )
    if method == "greedy":
        return _solutions(layers, greedily)
    bounds = quick_bounds(layers)
    plain = [
        _solution(layer, [contiguous(layer), found], bound)
        for layer, found, bound in zip(layers, greedily, bounds, strict=True)
    ]
    if method != "auto" or within(plain, tolerance) or _best_undivided(layers, plain, tolerance):
        return plain
    pairs = len(layers) * layers[0].items * layers[0].devices

    def in_time() -> bool:
        return (pairs <= AT_ONCE_PAIRS and not by_clock) or deadline.left_s > 0

    # Whole groups are so few that they take next to no time; what is divided begins elsewhere.
    groups, counts = ([], []) if layers[0].divisible else _by_rule(layers)
    quickly = partial(
        start, method="auto", tolerance=tolerance, deadline=deadline, by_clock=by_clock
    )
    known = _seeded(layers, plain, groups, tolerance, quickly)
    tried = [
        _solution(layer, [best.assignment, *other_starts(layer)], best.bound) if in_time() else best
        for layer, best in zip(layers, known, strict=True)
    ]
    if layers[0].additive and layers[0].workloads == 1 and deadline.left_s > 0:
        tried = _descended(layers, tried, deadline)
    return _seeded(layers, tried, counts, tolerance, quickly) if in_time() else tried


def _best_undivided(
    layers: Sequence[LayerProblem], plain: Sequence[LayerSolution], tolerance: float
) -> bool:
    """Whether items are to be divided, and no better placement of whole ones can be hoped for."""
    if not layers[0].divisible:
        return False
    bounds = quick_bounds([replace(layer, divisible=False) for layer in layers])
    return within([replace(s, bound=b) for s, b in zip(plain, bounds, strict=True)], tolerance)


def _by_rule(layers: Sequence[LayerProblem]) -> tuple[list[LayerProblem], list[LayerProblem]]:
    """The layers as whole groups, and in equal counts; none where that is no other problem."""
    groups = [] if layers[0].single_groups else [layer.by_group() for layer in layers]
    free = not layers[0].equal_counts and layers[0].slots is None
    return groups, [replace(layer, equal_counts=True) for layer in layers] if free else []


def _seeded(
    layers: Sequence[LayerProblem],
    known: list[LayerSolution],
    tight: Sequence[LayerProblem],
    tolerance: float,
    quickly: Callable[[Sequence[LayerProblem]], list[LayerSolution]],
) -> list[LayerSolution]:
    """With the starts of these tighter layers, if there are any."""
    if not tight or within(known, tolerance):
        return known
    seeds = quickly(tight)
    return [seeded(*each) for each in zip(layers, known, tight, seeds, strict=True)]


def tighter(layer: LayerProblem) -> list[LayerProblem]:
    """The layer under tighter rules, where it is smaller or more regular: groups, equal counts."""
    return [tight for rule in _by_rule([layer]) for tight in rule]


def seeded(
    layer: LayerProblem, known: LayerSolution, tight: LayerProblem, seed: LayerSolution
) -> LayerSolution:
    """With what was found under tighter rules, where that is better and obeys the layer's own."""
    found = seed.assignment
    whole_groups = tight.items < layer.items
    return known.place(layer, found[layer.group_of] if whole_groups else found)


def within(solutions: Sequence[LayerSolution], tolerance: float) -> bool:
    """Whether these layers together are proved within the tolerance."""
    makespan_s = sum(solution.makespan_s for solution in solutions)
    bound_s = sum(solution.bound.seconds for solution in solutions)
    return 1 - bound_s / makespan_s <= tolerance


def other_starts(layer: LayerProblem) -> list[Assignment]:
    """What there is beside contiguous and greedy, whole KV groups among it."""
    starts = [within_slots(heuristic, layer) for heuristic in (snake, greedy_equal, charged)]
    if layer.identical:
        starts.append(multifit(layer))
    if not layer.single_groups:
        by_group = layer.by_group()
        starts += [heuristic(by_group)[layer.group_of] for heuristic in (greedy, snake)]
    return starts


def _solutions(layers: Sequence[LayerProblem], starts: Iterable[Assignment]) -> list[LayerSolution]:
    """One start of every layer as it is."""
    shares = [layer.whole(found) for layer, found in zip(layers, starts, strict=True)]
    loads = loads_of_layers(layers, shares)
    each_s = [layer.objective(loads[:, index]) for index, layer in enumerate(layers)]
    return list(map(LayerSolution, shares, each_s, quick_bounds(layers)))


def _solution(layer: LayerProblem, starts: Sequence[Assignment], bound: Bound) -> LayerSolution:
    """The best of those that obey the counts; contiguous always does."""
    allowed = [s for s in starts if layer.allows(s)] or starts[:1]
    each_s = [layer.makespan(s) for s in allowed]
    best = int(np.argmin(each_s))
    return LayerSolution(layer.whole(allowed[best]), each_s[best], bound)


def _descended(
    layers: Sequence[LayerProblem], tried: Sequence[LayerSolution], deadline: Deadline
) -> list[LayerSolution]:
    better = descend(
        np.stack([layer.item_with_charge_s()[0] for layer in layers]),
        np.stack([solution.assignment for solution in tried]),
        deadline,
        swaps_only=layers[0].equal_counts,
    )
    return [
        _solution(layer, [solution.assignment, found], solution.bound)
        for layer, solution, found in zip(layers, tried, better, strict=True)
    ]
