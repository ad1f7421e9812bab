"""The placement as a constraint program, solved by OR-tools' CP-SAT.

Times become integers by rounding **down**, so that what CP-SAT proves of the integers holds of the
true costs (rounding to nearest gave "bounds" above the optimum); what it finds is judged on the
true costs. Symmetry among identical devices is broken, `load <= T` stands in for the maximum, and
the search stops at half the tolerance.
"""

import math
from collections.abc import Callable

import numpy as np
from ortools.sat.python import cp_model

from solver.placement.exact import Deadline, Effort, Found, canonical, reachable, stopping
from solver.problem import Assignment, Ints, LayerProblem

LEVELS = 50_000
"""Integer levels of the start's makespan: what rounding down loses stays far below a tolerance
of 1e-3, and the numbers small enough for proofs in milliseconds."""

PARTS = 100_000
"""Whole parts that the workloads' weights are given in."""


def cp_sat(
    layer: LayerProblem,
    start: Assignment,
    known_bound_s: float,
    tolerance: float,
    deadline: Deadline,
    effort: Effort,
    on_found: Callable[[Assignment], None] | None = None,
) -> Found:
    """Search from `start` until the gap is within `tolerance` or the deadline has come.

    `on_found` gets every better placement on the way.
    """
    # Identical devices all pay the launch if they do anything: it moves every load alike.
    launch_s = layer.launch_s[:, 0] if layer.identical else np.zeros(layer.workloads)
    apart_s = float(layer.weights @ launch_s)
    scale = LEVELS / float((layer.loads(start).max(axis=1) - launch_s).max())
    model, placed = _model(layer, canonical(layer, start), scale, known_bound_s - apart_s)

    solver = cp_model.CpSolver()
    solver.parameters.relative_gap_limit = tolerance / 2
    solver.parameters.catch_sigint_signal = False
    effort.limit(solver.parameters, deadline.left_s)

    with stopping(deadline.cancelled, solver.stop_search):
        status = solver.solve(model, _Listener(placed, on_found) if on_found else None)
    units = scale * (PARTS if layer.workloads > 1 else 1)
    bound_s = math.floor(solver.best_objective_bound) / units * (1 - 1e-12) + apart_s
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Found(None, bound_s if status == cp_model.UNKNOWN else 0.0, "cp_sat")
    return Found(_devices(placed, solver.boolean_value), bound_s, "cp_sat")


Placed = list[dict[int, cp_model.IntVar]]


def _devices(placed: Placed, chosen: Callable[[cp_model.IntVar], bool]) -> Assignment:
    return np.array(
        [next(d for d, x in row.items() if chosen(x)) for row in placed], dtype=np.int64
    )


class _Listener(cp_model.CpSolverSolutionCallback):
    """Passes every solution on as an assignment."""

    def __init__(self, placed: Placed, on_found: Callable[[Assignment], None]) -> None:
        super().__init__()
        self._placed = placed
        self._on_found = on_found

    def on_solution_callback(self) -> None:
        self._on_found(_devices(self._placed, self.boolean_value))


def _model(
    layer: LayerProblem, start: Assignment, scale: float, known_bound_s: float
) -> tuple[cp_model.CpModel, Placed]:
    """Variables `placed[item][device]`, the loads below T, and the start as a hint."""
    model = cp_model.CpModel()
    item_cost = np.floor(layer.item_s * scale).astype(np.int64)
    group_cost = np.floor(layer.group_s * scale).astype(np.int64)
    launch_cost = np.floor(layer.launch_s * scale).astype(np.int64)
    allowed = reachable(layer)

    placed: Placed = [
        {d: model.new_bool_var(f"x_{i}_{d}") for d in range(layer.devices) if allowed[i, d]}
        for i in range(layer.items)
    ]
    for i, row in enumerate(placed):
        model.add_exactly_one(row.values())
        for d, x in row.items():
            model.add_hint(x, bool(start[i] == d))

    makespans = [
        model.new_int_var(0, _most(item_cost[w], group_cost[w], launch_cost[w]), f"T_{w}")
        for w in range(layer.workloads)
    ]
    members = [np.flatnonzero(row).tolist() for row in layer.members]
    for d in range(layer.devices):
        here = {i: row[d] for i, row in enumerate(placed) if d in row}
        present = {}
        for g, items in enumerate(members):
            heads = [here[i] for i in items if i in here]
            if not heads or not group_cost[:, g, d].any():
                continue
            present[g] = heads[0] if len(items) == 1 else model.new_bool_var(f"y_{g}_{d}")
            if len(items) > 1:
                model.add_max_equality(present[g], heads)
                model.add_hint(present[g], bool((start[items] == d).any()))
        used = None
        if not layer.identical and here:
            used = model.new_bool_var(f"z_{d}")
            model.add_max_equality(used, list(here.values()))
            model.add_hint(used, bool((start == d).any()))
        for w, makespan in enumerate(makespans):
            load = [int(item_cost[w, i, d]) * x for i, x in here.items()]
            load += [int(group_cost[w, g, d]) * y for g, y in present.items()]
            if used is not None:
                load.append(int(launch_cost[w, d]) * used)
            model.add(sum(load) <= makespan)
        if layer.equal_counts:
            model.add(sum(here.values()) == int(layer.counts[d]))
    _minimise(model, layer, makespans, scale * known_bound_s)
    return model, placed


def _minimise(
    model: cp_model.CpModel,
    layer: LayerProblem,
    makespans: list[cp_model.IntVar],
    known_bound: float,
) -> None:
    """The one makespan, or the sum weighted in whole parts, rounded down like the costs."""
    if layer.workloads == 1:
        model.add(makespans[0] >= max(0, math.floor(known_bound * (1 - 1e-9))))
        model.minimize(makespans[0])
        return
    parts = np.floor(PARTS * layer.weights).astype(np.int64)
    model.minimize(sum(int(p) * T for p, T in zip(parts, makespans, strict=True)))


def _most(item_cost: Ints, group_cost: Ints, launch_cost: Ints) -> int:
    """Everything on the device where it takes longest: no load is larger."""
    return int(sum(costs.max(axis=-1).sum() for costs in (item_cost, group_cost, launch_cost)))
