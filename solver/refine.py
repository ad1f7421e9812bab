"""The refinements of one layer's solution, cheapest first: what `auto` and the exact methods do.

Each returns a solution at least as good: the placement re-evaluated on the true costs, and the
bound whichever proof is better.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from solver.bounds import lower_bound
from solver.placement.contiguous import contiguous
from solver.placement.enumeration import enumerated
from solver.placement.exact import Deadline, Effort
from solver.placement.exchange import exchange
from solver.placement.greedy import charged, greedy
from solver.placement.snake import snake
from solver.problem import Assignment, Floats, LayerProblem
from solver.request import Method
from solver.search import LAST_SHARES, Step, Tell
from solver.solution import Bound, LayerSolution
from solver.start import additive

LEVELS = 50_000
"""Integer levels of a makespan in the search without charges: see solver/placement/cp_sat.py."""

LEAST_GAIN = 1e-7
ROUNDING = 1e-12

DESCENTS = 3
"""How many starts are descended from, the best first."""


def refinements(method: Method, tolerance: float, effort: Effort) -> list[Step]:
    """What to try on a layer in turn; none for the heuristics, which are what they are."""

    def prove(
        layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
    ) -> LayerSolution:
        return proved(layer, known, tolerance, deadline)

    def exact(
        layer: LayerProblem, known: LayerSolution, deadline: Deadline, tell: Tell
    ) -> LayerSolution:
        # Imported where first needed: OR-tools takes half a second, and quick plans do without.
        if method == "ilp":
            return _by_ilp(layer, known, tolerance, deadline)
        if method == "auto" and additive(layer) and layer.identical and effort.seed is None:
            return _by_partition(layer, known, tolerance, deadline, tell)
        return _by_cp_sat(layer, known, tolerance, deadline, effort, tell)

    match method:
        case "auto":
            quick = [Step(counted), Step(descended), Step(prove)]
            return [*quick, Step(exact, LAST_SHARES, alone=True)]
        case "cp_sat" | "ilp":
            return [Step(exact, LAST_SHARES, alone=True)]
    return []


def taking(layer: LayerProblem, known: LayerSolution, found: Assignment | None) -> LayerSolution:
    """The better placement of the two, if the other obeys the rules."""
    if found is None or not layer.allows(found):
        return known
    loads = layer.loads(found)
    makespan_s = layer.objective(loads)
    if makespan_s > known.makespan_s * (1 - ROUNDING):
        # Of equals the flatter loads: they leave room where heads turn out longer than planned.
        tied = makespan_s <= known.makespan_s
        if not tied or _square(loads) >= _square(layer.loads_of_shares(known.shares)):
            return known
    return replace(known, shares=layer.whole(found), makespan_s=makespan_s)


def _square(loads: Floats) -> float:
    return float((loads**2).sum()) * (1 + ROUNDING)


def bounded(known: LayerSolution, seconds: float, proof: str) -> LayerSolution:
    """The better bound of the two; rounding never lets one pass what was reached.

    A proof that is better by rounding alone does not take a plainer one's place.
    """
    if seconds <= known.bound.seconds * (1 + LEAST_GAIN):
        return known
    return replace(known, bound=Bound(min(seconds, known.makespan_s), proof))


def descended(
    layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
) -> LayerSolution:
    """Exchange descent, which sees shared charges, from several starts."""
    bound = lower_bound(layer)
    best = bounded(known, bound.seconds, bound.proof)
    if additive(layer):
        return best
    starts = sorted((s for s in _starts(layer) if layer.allows(s)), key=layer.makespan)
    for start in [known.assignment, *starts[:DESCENTS]]:
        best = taking(layer, best, exchange(layer, start, deadline))
    return best


def _starts(layer: LayerProblem) -> Iterator[Assignment]:
    yield from (contiguous(layer), greedy(layer), charged(layer))
    if not layer.single_groups:
        by_group = layer.by_group()
        yield from (heuristic(by_group)[layer.group_of] for heuristic in (greedy, snake))


def counted(
    layer: LayerProblem, known: LayerSolution, deadline: Deadline, _: Tell
) -> LayerSolution:
    """The optimum of a small layer by enumeration, whatever its workloads; else as it was."""
    found = enumerated(layer, known.assignment, deadline)
    if found is None:
        return known
    return _searched(layer, known, found.assignment, found.lower_bound_s, found.proof)


def proved(
    layer: LayerProblem, known: LayerSolution, tolerance: float, deadline: Deadline
) -> LayerSolution:
    """The bound of the configuration program, and whole placements filled by its multipliers.

    For several workloads it is the bound of their blend: what the weighted loads of one device
    reach at most, no weighted sum of largest loads is below.
    """
    from solver.configurations import Layer, configuration_bound, fill_in_turn

    _, first, type_of, count = np.unique(
        layer.type_of, return_index=True, return_inverse=True, return_counts=True
    )
    item_s = layer.blended_s[:, first]
    charge_s = np.tensordot(layer.weights, layer.group_s, 1)[:, first]
    launch_s = (layer.weights @ layer.launch_s)[first]
    counts = layer.counts if layer.equal_counts and layer.identical else None
    found = configuration_bound(
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
    better = bounded(known, found.seconds, "configuration program")
    if layer.divisible or better.gap <= tolerance:
        return better
    filled = fill_in_turn(
        Layer(item_s, charge_s, launch_s, layer.group_of, type_of, counts),
        found.values,
        better.bound.seconds,
        better.makespan_s,
        deadline,
        tolerance=tolerance,
    )
    if filled is None:
        return better
    return taking(layer, taking(layer, better, filled), exchange(layer, filled, deadline))


def _by_partition(
    layer: LayerProblem, known: LayerSolution, tolerance: float, deadline: Deadline, tell: Tell
) -> LayerSolution:
    """Number partitioning on whole numbers; rounded down, so that its bound holds of the costs."""
    from solver.partition.partition import partition

    cost = layer.item_with_charge_s()[0, :, 0]
    launch_s = float(layer.launch_s[0, 0])
    scale = LEVELS / (known.makespan_s - launch_s)
    found = partition(
        np.floor(cost * scale).astype(np.int64),
        layer.devices,
        deadline,
        counts=layer.counts if layer.equal_counts else None,
        start=known.assignment,
        gap=tolerance / 2,
        on_improve=lambda _, bound: tell(
            bounded(known, bound / scale * (1 - 1e-12) + launch_s, "number partitioning")
        ),
    )
    better = taking(layer, known, found.machine_of)
    searched = replace(better, searched=better is not known or known.searched)
    seconds = found.lower_bound / scale * (1 - 1e-12) + launch_s
    return bounded(searched, seconds, f"number partitioning, {found.proof}")


def _by_cp_sat(
    layer: LayerProblem,
    known: LayerSolution,
    tolerance: float,
    deadline: Deadline,
    effort: Effort,
    tell: Tell,
) -> LayerSolution:
    from solver.placement.cp_sat import cp_sat

    found = cp_sat(
        layer,
        known.assignment,
        known.bound.seconds,
        tolerance,
        deadline,
        effort,
        lambda assignment: tell(taking(layer, known, assignment)),
    )
    return _searched(layer, known, found.assignment, found.lower_bound_s, found.proof)


def _by_ilp(
    layer: LayerProblem, known: LayerSolution, tolerance: float, deadline: Deadline
) -> LayerSolution:
    from solver.placement.ilp import ilp

    found = ilp(layer, known.assignment, tolerance, deadline)
    return _searched(layer, known, found.assignment, found.lower_bound_s, found.proof)


def _searched(
    layer: LayerProblem,
    known: LayerSolution,
    assignment: Assignment | None,
    bound_s: float,
    proof: str,
) -> LayerSolution:
    better = taking(layer, known, assignment)
    return bounded(replace(better, searched=better is not known or known.searched), bound_s, proof)
