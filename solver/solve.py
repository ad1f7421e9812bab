"""Bounds first, then a quick placement, then exact search where the gap is above the tolerance.

Layers are independent. Whatever the deadline, every layer has an assignment and a bound: the quick
placement is made before any search and held outside the solvers, which can only improve on it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event

from solver.bounds import Bound, lower_bound
from solver.placement.contiguous import contiguous
from solver.placement.exact import Deadline, Found
from solver.placement.exchange import exchange
from solver.placement.greedy import greedy
from solver.placement.greedy_equal import greedy_equal
from solver.placement.snake import snake
from solver.problem import Assignment, LayerProblem, PlacementProblem
from solver.request import Method

Heuristic = Callable[[LayerProblem], Assignment]
HEURISTICS: dict[str, Heuristic] = {
    "contiguous": contiguous,
    "snake": snake,
    "greedy_equal": greedy_equal,
    "greedy": greedy,
}


DESCENTS = 3
"""How many of its starts `auto` descends from, the best first."""


@dataclass(frozen=True, eq=False)
class LayerSolution:
    """An assignment of one layer's items, its makespan, and the best bound proved."""

    assignment: Assignment
    makespan_s: float
    bound: Bound
    searched: bool = False
    """Whether an exact search found it, not the quick start."""

    @property
    def gap(self) -> float:
        return max(0.0, 1 - self.bound.seconds / self.makespan_s)


@dataclass(frozen=True, eq=False)
class Solution:
    """All layers, and why the search stopped short where it did."""

    layers: list[LayerSolution]
    reason: str | None


@dataclass(frozen=True)
class Progress:
    """How far a solve is: layers settled, and the plan's makespan and bound as they stand."""

    settled: int
    layers: int
    makespan_s: float
    lower_bound_s: float

    @property
    def gap(self) -> float:
        return 1 - self.lower_bound_s / self.makespan_s


def solve(
    problem: PlacementProblem,
    method: Method,
    time_limit_s: float,
    tolerance: float,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: Event | None = None,
) -> Solution:
    """Place every layer's items; see the module for what each method may do."""
    deadline = Deadline(time.monotonic() + time_limit_s, cancelled or Event())
    layers = [problem.layer(index) for index in range(problem.layers)]
    alike = _first_alike(problem)
    solved: dict[int, LayerSolution] = {}
    for index in sorted(set(alike)):
        solved[index] = _quick(layers[index], problem, method, deadline)

    exact = method in ("auto", "cp_sat", "ilp")
    if exact:
        _search_open_layers(layers, solved, alike, method, tolerance, deadline, on_progress)
    solution = [solved[first] for first in alike]
    return Solution(solution, _reason(solution, method, tolerance) if exact else None)


def _search_open_layers(
    layers: list[LayerProblem],
    solved: dict[int, LayerSolution],
    alike: list[int],
    method: Method,
    tolerance: float,
    deadline: Deadline,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Search layers above the tolerance, largest possible gain first.

    Ends when the plan as a whole is within the tolerance, or at the deadline. Each pass gives
    every open layer twice its even share of what is left; a layer that used all of it without
    closing its gap is searched again, longer, once the others have had their turn.
    """
    weight = {first: alike.count(first) for first in solved}
    still_open = [index for index in solved if solved[index].gap > tolerance]
    while still_open and deadline.left_s > 0:
        still_open.sort(key=lambda i: weight[i] * (solved[i].bound.seconds - solved[i].makespan_s))
        timed_out = []
        for done, index in enumerate(still_open):
            share = deadline.within(2 * deadline.left_s / (len(still_open) - done))
            if share.left_s <= 0 or _progress(solved, weight, tolerance).gap <= tolerance:
                return
            solved[index] = _search(layers[index], solved[index], method, tolerance, share)
            if solved[index].gap > tolerance and share.left_s <= 0:
                timed_out.append(index)
            if on_progress is not None:
                on_progress(_progress(solved, weight, tolerance))
        still_open = timed_out


def _quick(
    layer: LayerProblem, problem: PlacementProblem, method: Method, deadline: Deadline
) -> LayerSolution:
    """The heuristic asked for; for `auto` the best of all that the rules allow, improved."""
    bound = lower_bound(layer)
    if method != "auto":
        only = HEURISTICS[_start_of(method)](layer)
        return LayerSolution(only, layer.makespan(only), bound)
    starts = [heuristic(layer) for heuristic in HEURISTICS.values()]
    if problem.unit == "head":
        by_group = layer.by_group()
        starts += [HEURISTICS[name](by_group)[layer.group_of] for name in ("greedy", "snake")]
    obeying = sorted((s for s in starts if layer.allows(s)), key=layer.makespan)
    descended = [exchange(layer, start, deadline) for start in obeying[:DESCENTS]]
    best = min(descended, key=layer.makespan)
    return LayerSolution(best, layer.makespan(best), bound)


def _start_of(method: Method) -> str:
    """The exact methods start from greedy; the others are their own."""
    return method if method in HEURISTICS else "greedy"


def _search(
    layer: LayerProblem,
    start: LayerSolution,
    method: Method,
    tolerance: float,
    deadline: Deadline,
) -> LayerSolution:
    """The exact search's better assignment and better bound, each on its own."""
    found = _exact(layer, start, method, tolerance, deadline)
    best = start
    if found.lower_bound_s > start.bound.seconds:
        best = replace(best, bound=Bound(found.lower_bound_s, found.proof))
    if found.assignment is not None and layer.allows(found.assignment):
        makespan_s = layer.makespan(found.assignment)
        if makespan_s < start.makespan_s:
            best = replace(best, assignment=found.assignment, makespan_s=makespan_s, searched=True)
    # The search proves on rounded costs: never let rounding push a bound above what was reached.
    return replace(best, bound=Bound(min(best.bound.seconds, best.makespan_s), best.bound.proof))


def _exact(
    layer: LayerProblem,
    start: LayerSolution,
    method: Method,
    tolerance: float,
    deadline: Deadline,
) -> Found:
    # Imported where first needed: OR-tools takes half a second, and greedy plans do without.
    if method == "ilp":
        from solver.placement.ilp import ilp

        return ilp(layer, start.assignment, tolerance, deadline)
    from solver.placement.cp_sat import cp_sat

    return cp_sat(layer, start.assignment, start.bound.seconds, tolerance, deadline)


def _first_alike(problem: PlacementProblem) -> list[int]:
    """For every layer the first layer with the same costs: alike layers are solved once."""
    first: dict[bytes, int] = {}
    return [
        first.setdefault(problem.head_s[i].tobytes() + problem.group_s[i].tobytes(), i)
        for i in range(problem.layers)
    ]


def _progress(
    solved: dict[int, LayerSolution], weight: dict[int, int], tolerance: float
) -> Progress:
    return Progress(
        settled=sum(weight[i] for i, s in solved.items() if s.gap <= tolerance),
        layers=sum(weight.values()),
        makespan_s=sum(weight[i] * s.makespan_s for i, s in solved.items()),
        lower_bound_s=sum(weight[i] * s.bound.seconds for i, s in solved.items()),
    )


def _reason(layers: list[LayerSolution], method: Method, tolerance: float) -> str | None:
    """Why a plan of an exact method is not proved, or None if every layer is."""
    unproved = [layer for layer in layers if layer.gap > tolerance]
    if not unproved:
        return None
    kept = sum(not layer.searched for layer in unproved)
    return (
        f"{len(unproved)} of {len(layers)} layers are not proved within the tolerance when the "
        f"search ended; in {kept} of them {method} found nothing better than its quick start"
    )
