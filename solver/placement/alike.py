"""The placement where items repeat few costs: is there one within T, for ever closer T?

Whether one exists is asked of the covering by fillings, all of them listed; where they are too
many, of the numbers of items on devices. Costs are rounded down, so that "none" is a bound on the
true makespan (the dual approximation of Hochbaum & Shmoys 1987, exact here).
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from solver.placement.all_fillings import WholeCosts, all_fillings
from solver.placement.counting import count
from solver.placement.covering import cover
from solver.placement.decided import Decided
from solver.placement.exact import Deadline, Effort, Found
from solver.placement.interchangeable import Classes, classes_of
from solver.problem import Assignment, LayerProblem

LEVELS = 10_000_000
"""Whole numbers of the start's makespan: what rounding down loses is nothing."""
FEW_FILLINGS, MOST_FILLINGS = 1_500, 20_000
"""Asked of first, and at all; a covering by 1,500 takes some 50 ms."""
QUESTIONS = 12
"""At most; a seeded search divides its work by as many."""


def alike(
    layer: LayerProblem,
    start: Assignment,
    known_bound_s: float,
    tolerance: float,
    deadline: Deadline,
    effort: Effort,
    on_found: Callable[[Assignment], None] | None = None,
) -> Found | None:
    """Search from `start` until within `tolerance` or time is out; None for unlike devices.

    `on_found` gets every better placement on the way.
    """
    if layer.workloads > 1 or not layer.identical:
        return None
    classes = classes_of(layer)
    launch_s = float(layer.launch_s[0, 0])
    best, best_s, bound_s = start, layer.makespan(start), known_bound_s
    scale = LEVELS / best_s
    costs = _whole(layer, classes, scale)
    each = replace(effort, units=effort.units / QUESTIONS)
    refused_s = bound_s
    for question in range(QUESTIONS):
        if refused_s >= best_s * (1 - tolerance) or deadline.left_s <= 0:
            break
        aim_s = refused_s / (1 - tolerance)
        if question:
            aim_s = max(aim_s, (refused_s + best_s) / 2)
        room = int((aim_s - launch_s) * scale * (1 + 1e-12))
        decided = _decide(costs, room, _half(deadline, effort), each)
        if decided.impossible:
            bound_s = max(bound_s, (room + 1) / scale * (1 - 1e-12) + launch_s)
        found = None if decided.counts is None else classes.placed(decided.counts)
        if found is None or layer.makespan(found) >= best_s:
            refused_s = aim_s
            continue
        best, best_s = found, layer.makespan(found)
        if on_found is not None:
            on_found(found)
    return Found(best, min(bound_s, best_s), "covering with fillings")


def _half(deadline: Deadline, effort: Effort) -> Deadline:
    """Half of the time for one question, so that a hard one leaves some; seeds go by work alone."""
    return deadline if effort.seed is not None else deadline.within(deadline.left_s / 2)


def _decide(costs: WholeCosts, room: int, deadline: Deadline, effort: Effort) -> Decided:
    """Ask the best fillings first; only all of them can say that it is impossible."""
    fillings = all_fillings(costs, room, deadline)
    if fillings is None:
        return count(costs, room, deadline, effort)
    if len(fillings) > FEW_FILLINGS:
        quick = cover(costs, fillings[:FEW_FILLINGS], _half(deadline, effort), effort)
        if quick.counts is not None:
            return quick
        if len(fillings) > MOST_FILLINGS:
            return count(costs, room, deadline, effort)
    return cover(costs, fillings, deadline, effort)


def _whole(layer: LayerProblem, classes: Classes, scale: float) -> WholeCosts:
    return WholeCosts(
        classes,
        np.floor(classes.cost_s[:, 0] * scale).astype(np.int64),
        np.floor(layer.group_s[0, :, 0] * scale).astype(np.int64),
        layer.devices,
        layer.counts if layer.equal_counts else None,
    )
