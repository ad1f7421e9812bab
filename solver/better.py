"""What makes one solution of a layer better than another: placement and bound, each on its own."""

from dataclasses import replace

from solver.problem import Assignment, Floats, LayerProblem
from solver.solution import Bound, LayerSolution

LEAST_GAIN = 1e-7
ROUNDING = 1e-12


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


def searched(
    layer: LayerProblem,
    known: LayerSolution,
    assignment: Assignment | None,
    bound_s: float,
    proof: str,
) -> LayerSolution:
    better = taking(layer, known, assignment)
    return bounded(replace(better, searched=better is not known or known.searched), bound_s, proof)
