"""The exact searches of one layer, each started from the best known and judged on true costs."""

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from solver.better import bounded, searched, taking
from solver.placement.exact import Deadline, Effort, Found
from solver.problem import Assignment, LayerProblem
from solver.request import Method
from solver.search import Tell
from solver.solution import LayerSolution
from solver.start import additive

IMPORT_S = 0.5
LEVELS = 50_000
"""Integer levels of a makespan in the search without charges: see solver/placement/cp_sat.py."""


def by_search(
    layer: LayerProblem,
    known: LayerSolution,
    method: Method,
    tolerance: float,
    deadline: Deadline,
    effort: Effort,
    tell: Tell,
) -> LayerSolution:
    """The method asked for; for `auto` the one that suits the layer.

    Number partitioning where costs add up item by item, coverings with fillings of one device
    where items share charges on identical devices, and the constraint program for the rest.
    """
    if method == "ilp":
        return _by_ilp(layer, known, tolerance, deadline)
    if method == "auto":
        if additive(layer) and layer.identical and effort.seed is None:
            return _by_partition(layer, known, tolerance, deadline, tell)
        covered = by_covering(layer, known, tolerance, deadline, effort, tell)
        if covered is not None:
            return covered
    return _by_cp_sat(layer, known, tolerance, deadline, effort, tell)


def _too_late(deadline: Deadline) -> bool:
    """OR-tools is imported where first needed, for quick plans do without; it takes that long."""
    return "ortools" not in sys.modules and deadline.left_s < IMPORT_S


def by_covering(
    layer: LayerProblem,
    known: LayerSolution,
    tolerance: float,
    deadline: Deadline,
    effort: Effort,
    tell: Tell,
) -> LayerSolution | None:
    """Coverings with fillings; None for unlike devices and several workloads."""
    if _too_late(deadline):
        return known
    from solver.placement.alike import alike

    return _asked(alike, layer, known, tolerance, deadline, effort, tell)


Program = Callable[
    [LayerProblem, Assignment, float, float, Deadline, Effort, Callable[[Assignment], None]],
    Found | None,
]
"""Gets layer, start, bound, tolerance, deadline, effort, and whom to give better placements."""


def _asked(
    program: Program,
    layer: LayerProblem,
    known: LayerSolution,
    tolerance: float,
    deadline: Deadline,
    effort: Effort,
    tell: Tell,
) -> LayerSolution | None:
    """What a program makes of the best known; None where it declines the layer."""

    def on_found(assignment: Assignment) -> None:
        tell(taking(layer, known, assignment))

    found = program(
        layer, known.assignment, known.bound.seconds, tolerance, deadline, effort, on_found
    )
    if found is None:
        return None
    return searched(layer, known, found.assignment, found.lower_bound_s, found.proof)


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
    better = replace(better, searched=better is not known or known.searched)
    seconds = found.lower_bound / scale * (1 - 1e-12) + launch_s
    return bounded(better, seconds, f"number partitioning, {found.proof}")


def _by_cp_sat(
    layer: LayerProblem,
    known: LayerSolution,
    tolerance: float,
    deadline: Deadline,
    effort: Effort,
    tell: Tell,
) -> LayerSolution:
    if _too_late(deadline):
        return known
    from solver.placement.cp_sat import cp_sat

    return _asked(cp_sat, layer, known, tolerance, deadline, effort, tell) or known


def _by_ilp(
    layer: LayerProblem, known: LayerSolution, tolerance: float, deadline: Deadline
) -> LayerSolution:
    from solver.placement.ilp import ilp

    found = ilp(layer, known.assignment, tolerance, deadline)
    return searched(layer, known, found.assignment, found.lower_bound_s, found.proof)
