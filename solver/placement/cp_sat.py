"""The placement as a constraint program, solved by OR-tools' CP-SAT.

Times become integers by rounding **down**, so that what CP-SAT proves of the integers holds of the
true costs (rounding to nearest gave "bounds" above the optimum); what it finds is judged on the
true costs. Symmetry among identical devices is broken, `load <= T` stands in for the maximum, and
the search stops at half the tolerance.
"""

import math
import os

import numpy as np
from ortools.sat.python import cp_model

from solver.placement.exact import Deadline, Found, canonical, reachable, stopping
from solver.problem import Assignment, LayerProblem

LEVELS = 50_000
"""Integer levels of the start's makespan: what rounding down loses stays far below a tolerance
of 1e-3, and the numbers small enough for proofs in milliseconds."""


def cp_sat(
    layer: LayerProblem,
    start: Assignment,
    known_bound_s: float,
    tolerance: float,
    deadline: Deadline,
) -> Found:
    """Search from `start` until the gap is within `tolerance` or the deadline has come."""
    # Identical devices all pay the launch if they do anything: it moves every load alike.
    launch_s = float(layer.launch_s[0]) if layer.identical else 0.0
    scale = LEVELS / (layer.makespan(start) - launch_s)
    model, placed = _model(layer, canonical(layer, start), scale, known_bound_s - launch_s)

    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(deadline.left_s, 0.01)
    solver.parameters.relative_gap_limit = tolerance / 2
    solver.parameters.num_workers = min(8, os.cpu_count() or 1)
    solver.parameters.catch_sigint_signal = False

    with stopping(deadline.cancelled, solver.stop_search):
        status = solver.solve(model)
    bound_s = math.floor(solver.best_objective_bound) / scale * (1 - 1e-12) + launch_s
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Found(None, bound_s if status == cp_model.UNKNOWN else 0.0, "cp_sat")
    device = np.array(
        [next(d for d, x in row.items() if solver.boolean_value(x)) for row in placed],
        dtype=np.int64,
    )
    return Found(device, bound_s, "cp_sat")


Placed = list[dict[int, cp_model.IntVar]]


def _model(
    layer: LayerProblem, start: Assignment, scale: float, known_bound_s: float
) -> tuple[cp_model.CpModel, Placed]:
    """Variables `placed[item][device]`, the loads below T, and the start as a hint."""
    model = cp_model.CpModel()
    item_cost = np.floor(layer.item_s * scale).astype(np.int64)
    group_cost = np.floor(layer.group_s * scale).astype(np.int64)
    launch_cost = np.floor(layer.launch_s * scale).astype(np.int64)
    allowed = reachable(layer)

    least = max(0, math.floor(known_bound_s * scale * (1 - 1e-9)))
    makespan = model.new_int_var(min(least, LEVELS), LEVELS, "T")
    placed: Placed = [
        {d: model.new_bool_var(f"x_{i}_{d}") for d in range(layer.devices) if allowed[i, d]}
        for i in range(layer.items)
    ]
    for i, row in enumerate(placed):
        model.add_exactly_one(row.values())
        for d, x in row.items():
            model.add_hint(x, bool(start[i] == d))

    members = [np.flatnonzero(layer.group_of == g).tolist() for g in range(len(layer.group_s))]
    for d in range(layer.devices):
        here = {i: row[d] for i, row in enumerate(placed) if d in row}
        load = [int(item_cost[i, d]) * x for i, x in here.items()]
        for g, items in enumerate(members):
            heads = [here[i] for i in items if i in here]
            if not heads or not group_cost[g, d]:
                continue
            present = heads[0] if len(items) == 1 else model.new_bool_var(f"y_{g}_{d}")
            if len(items) > 1:
                model.add_max_equality(present, heads)
                model.add_hint(present, bool((start[items] == d).any()))
            load.append(int(group_cost[g, d]) * present)
        if not layer.identical and here:
            used = model.new_bool_var(f"z_{d}")
            model.add_max_equality(used, list(here.values()))
            model.add_hint(used, bool((start == d).any()))
            load.append(int(launch_cost[d]) * used)
        model.add(sum(load) <= makespan)
        if layer.equal_counts:
            model.add(sum(here.values()) == int(layer.counts[d]))
    model.minimize(makespan)
    return model, placed
