"""The refinements of one layer's solution, cheapest first: what `auto` and the exact methods do.

Each returns a solution at least as good: the placement re-evaluated on the true costs, and the
bound whichever proof is better.
"""

from dataclasses import replace

import numpy as np

from solver.better import bounded, searched, taking
from solver.bounds import lower_bound
from solver.exactly import by_covering, by_search
from solver.placement.contiguous import contiguous
from solver.placement.enumeration import enumerated
from solver.placement.exact import Deadline, Effort
from solver.placement.exchange import exchange
from solver.placement.greedy import greedy
from solver.placement.resplit import resplit_pairs
from solver.problem import LayerProblem
from solver.request import Method
from solver.search import LAST_SHARES, Step, Tell
from solver.solution import LayerSolution
from solver.start import additive, other_starts

RESPLIT_S = 0.05
"""Seconds of dividing pairs of devices anew: what it does not find then, coverings find sooner."""

DESCENTS = 3
"""How many starts are descended from, the best first."""


def refinements(method: Method, tolerance: float, effort: Effort) -> list[Step]:
    """What to try on a layer in turn; none for the heuristics, which are what they are."""

    def prove(
        layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
    ) -> LayerSolution:
        return proved(layer, known, tolerance, deadline, by_clock=effort.seed is None)

    def cover(
        layer: LayerProblem, known: LayerSolution, deadline: Deadline, tell: Tell
    ) -> LayerSolution:
        if additive(layer):
            return known
        alone = replace(effort, workers=1)
        return by_covering(layer, known, tolerance, deadline, alone, tell) or known

    def exact(
        layer: LayerProblem, known: LayerSolution, deadline: Deadline, tell: Tell
    ) -> LayerSolution:
        return by_search(layer, known, method, tolerance, deadline, effort, tell)

    match method:
        case "auto":
            quick = [Step(counted), Step(descended), Step(prove), Step(cover, LAST_SHARES)]
            return [*quick, Step(exact, LAST_SHARES, alone=True)]
        case "cp_sat" | "ilp":
            return [Step(exact, LAST_SHARES, alone=True)]
    return []


def descended(
    layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
) -> LayerSolution:
    """Exchange descent, which sees shared charges, from several starts."""
    bound = lower_bound(layer)
    best = bounded(known, bound.seconds, bound.proof)
    if additive(layer):
        return best
    starts = [contiguous(layer), greedy(layer), *other_starts(layer)]
    obeying = sorted((s for s in starts if layer.allows(s)), key=layer.makespan)
    for start in [known.assignment, *obeying[:DESCENTS]]:
        best = taking(layer, best, exchange(layer, start, deadline))
    return best


def counted(
    layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
) -> LayerSolution:
    """The optimum of a small layer by enumeration, whatever its workloads; else as it was."""
    found = enumerated(layer, known.assignment, deadline)
    if found is None:
        return known
    return searched(layer, known, found.assignment, found.lower_bound_s, found.proof)


def proved(
    layer: LayerProblem,
    known: LayerSolution,
    tolerance: float,
    deadline: Deadline,
    *,
    by_clock: bool = True,
) -> LayerSolution:
    """The bound of the configuration program, and pairs of devices divided anew towards it.

    For several workloads it is the bound of their blend: what the weighted loads of one device
    reach at most, no weighted sum of largest loads is below.
    """
    from solver.configurations import configuration_bound

    _, first, count = np.unique(layer.type_of, return_index=True, return_counts=True)
    item_s = layer.blended_s[:, first]
    charge_s = np.tensordot(layer.weights, layer.group_s, 1)[:, first]
    launch_s = (layer.weights @ layer.launch_s)[first]
    counts = layer.counts if layer.equal_counts and layer.identical else None
    proved_s = configuration_bound(
        item_s,
        charge_s,
        launch_s,
        layer.group_of,
        count,
        counts,
        known.bound.seconds,
        known.makespan_s,
        deadline.within(deadline.left_s / 2),
        divisible=layer.divisible,
        tolerance=tolerance,
    )
    better = bounded(known, proved_s, "configuration program")
    if layer.divisible or additive(layer) or better.gap <= tolerance:
        return better
    resplit = resplit_pairs(
        layer,
        better.assignment,
        better.bound.seconds / (1 - tolerance),
        deadline.within(RESPLIT_S) if by_clock else deadline,
    )
    return taking(layer, better, resplit)
