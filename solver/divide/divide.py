"""Divided items: the best whole placement improved on by sharing items out (docs/design.md, 1).

Wrap-around, components, the linear program's vertex and the whole placement are starts; the linear
program gives the best shares on the pairs each has; the integer program searches where a gap is
left; and parts are given up while that costs next to nothing. The whole placement stays where
dividing gains less than the tolerance.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from solver.bounds import weighted
from solver.deadline import Deadline
from solver.divide.components import applies, by_components
from solver.divide.divided_bounds import bounds_of_workloads, combined, divided_bound
from solver.divide.integer_program import Searched, least_makespan
from solver.divide.linear_program import best_shares, vertex
from solver.divide.over_nodes import over_nodes
from solver.divide.retreat import retreat
from solver.divide.wrap_around import blend, wrap_around
from solver.problem import Assignment, LayerProblem
from solver.shares import Shares
from solver.solution import Bound, LayerSolution

BOUND_SHARE = 0.25
"""Of the time, at most, for bounds that take programs: the rest is for placements."""
BLOCKS = range(16, 7, -1)
"""Sizes of nodes as which BLOCKS_FROM alike devices or more are filled: the first that fits."""
BLOCKS_FROM = 64
VERTEX_PAIRS = 4096
"""Pairs, of every workload, up to which the program of all of them is solved: some 50 ms."""


@dataclass(frozen=True, eq=False)
class _Reached:
    """Shares and what they come to."""

    shares: Shares
    seconds: float

    @classmethod
    def by(cls, layer: LayerProblem, shares: Shares) -> "_Reached":
        return cls(shares, layer.objective(layer.loads_of_shares(shares)))


def divide(
    layer: LayerProblem,
    whole: Assignment,
    bound: Bound,
    tolerance: float,
    deadline: Deadline,
    node_size: int | None = None,
    *,
    search: bool = True,
) -> LayerSolution:
    """Share the items out, never worse than `whole`; with `node_size`, over nodes first.

    `bound` holds for divided items too. Half of the tolerance is left to the rounding to rows.
    Without `search` what is left open is: the integer program, and giving up parts towards it, take
    what time there is.
    """
    kept = _Reached.by(layer, layer.whole(whole))
    if deadline.left_s <= 0:
        return LayerSolution(kept.shares, kept.seconds, bound)
    each = bounds_of_workloads(layer)
    bound = max(bound, weighted(layer, each), key=_seconds)
    soon = deadline.within(BOUND_SHARE * deadline.left_s)
    bound = max(bound, combined(layer, each, soon), key=_seconds)
    enough_s = bound.seconds / (1 - tolerance / 2)
    best = kept
    for shares in _starts(layer, bound, node_size, deadline, search):
        best = min(best, _Reached.by(layer, shares), key=_seconds)
        if best.seconds > enough_s and node_size is None:
            best = min(best, _descended(layer, shares, deadline), key=_seconds)
        if best.seconds <= enough_s or deadline.left_s <= 0:
            break
    searched = False
    # A layer within the tolerance is not met again: what rounding may cost is to be found now.
    search = search or best.seconds <= bound.seconds / (1 - tolerance)
    if search and node_size is None and best.seconds > enough_s:
        found = _searched(layer, best, each, tolerance, deadline)
        searched = found.shares is not best.shares
        best = _Reached.by(layer, found.shares)
        bound = max(bound, found.bound or bound, key=_seconds)
    if node_size is None and search:
        limit_s = max(best.seconds, min(enough_s, kept.seconds))
        best = _Reached.by(layer, retreat(layer, best.shares, limit_s, deadline))
    if best.seconds > kept.seconds * (1 - tolerance):
        best, searched = kept, False
    # Searches prove on rounded costs: never let rounding push a bound above what was reached.
    bound = Bound(min(bound.seconds, best.seconds), bound.proof)
    return LayerSolution(best.shares, best.seconds, bound, searched)


def _seconds(of: _Reached | Bound) -> float:
    return of.seconds


def _starts(
    layer: LayerProblem, bound: Bound, node_size: int | None, deadline: Deadline, search: bool
) -> Iterator[Shares]:
    """Divided placements to start from, the quickest first; all obey the rules."""
    blended = blend(layer)
    least_s = bound.seconds if layer.workloads == 1 else divided_bound(blended).seconds
    found = _filled(blended, least_s, node_size, deadline)
    if search and node_size is None:
        found = chain(found, _in_blocks(blended, least_s, deadline))
    if node_size is None and not (layer.identical and layer.workloads == 1):
        # What is wrapped around blended costs leaves every workload its own imbalance, and unlike
        # devices what they do less well than by their speed.
        found = chain(found, _of_any(layer, deadline))
    for shares in found:
        if shares is not None and layer.allows_shares(shares):
            yield shares


def _of_any(layer: LayerProblem, deadline: Deadline) -> Iterator[Shares | None]:
    if layer.item_s.size <= VERTEX_PAIRS:
        yield vertex(layer, deadline)


def _filled(
    layer: LayerProblem, least_s: float, node_size: int | None, deadline: Deadline
) -> Iterator[Shares | None]:
    if node_size is not None and node_size < layer.devices:
        yield over_nodes(layer, node_size, deadline, least_s)
        return
    yield wrap_around(layer, deadline, least_s)
    if applies(layer):
        yield by_components(layer, deadline, least_s)


def _in_blocks(layer: LayerProblem, least_s: float, deadline: Deadline) -> Iterator[Shares | None]:
    sizes = [size for size in BLOCKS if layer.devices % size == 0]
    if sizes and layer.identical and layer.devices >= BLOCKS_FROM:
        yield over_nodes(layer, sizes[0], deadline, least_s)


def _descended(layer: LayerProblem, start: Shares, deadline: Deadline) -> _Reached:
    """The best shares on the pairs of item and device that a start has."""
    reached = _Reached.by(layer, start)
    shares = best_shares(layer, start, deadline)
    return reached if shares is None else min(reached, _Reached.by(layer, shares), key=_seconds)


def _searched(
    layer: LayerProblem, start: _Reached, each: list[Bound], tolerance: float, deadline: Deadline
) -> Searched:
    """The integer program from a start without the parts that bring nothing."""
    lighter = retreat(layer, start.shares, 0.0, deadline)
    least_s = np.array([bound.seconds for bound in each])
    half = deadline.within(deadline.left_s / 2)
    return least_makespan(layer, lighter, least_s, tolerance, half)
