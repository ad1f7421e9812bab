"""The placement as an integer program in PuLP, solved by its bundled CBC, or written out as .lp.

    minimise T
    sum_d x[i, d] = 1                                   every item is placed once
    x[i, d] <= y[g(i), d] <= z[d]                       presence of groups, use of devices
    sum_i item_s x + sum_g group_s y + launch_s z <= T  every device
    sum_i x[i, d] = counts[d]                           where counts are equal
    sum_g y[g, d] <= slots                              where devices have slots; then z[d] = 1

Times are scaled so that the start's makespan is 1000: CBC's tolerances are absolute.
"""

import math
from collections import defaultdict
from pathlib import Path
from threading import Event

import numpy as np
import pulp

from solver.bounds import lifted
from solver.deadline import Deadline, OutOfTimeError
from solver.exact.cbc import CBC_SAFETY, quiet, run_cbc
from solver.exact.symmetry import canonical, reachable
from solver.problem import Assignment, LayerProblem
from solver.shares import Floats
from solver.solution import LayerSolution

MOST_PAIRS = 2**15
"""Of items and devices. CBC comes to no end of larger ones, and Python writes them for longer than
anybody waits who cancels."""


class Formulation:
    """The program of one layer: `x [items, devices]` (None where symmetry rules a pair out).

    Raises OutOfTimeError where the deadline comes before it is whole.
    """

    def __init__(self, layer: LayerProblem, scale: float, deadline: Deadline) -> None:
        items, devices = range(layer.items), range(layer.devices)
        allowed = reachable(layer)
        self.layer = layer
        self.scale = scale
        self.deadline = deadline
        with quiet():
            self.problem = pulp.LpProblem("makespan", pulp.LpMinimize)
            self.makespans = [pulp.LpVariable(f"T_{w}", lowBound=0) for w in range(layer.workloads)]
            self.x = {
                (i, d): pulp.LpVariable(f"x_{i}_{d}", 0, 1, "Binary")
                for i in items
                for d in devices
                if allowed[i, d]
            }
            pairs = {(int(layer.group_of[i]), d) for i, d in self.x}
            self.y = {
                (g, d): pulp.LpVariable(f"y_{g}_{d}", 0, 1, "Binary") for g, d in sorted(pairs)
            }
            self.z = [pulp.LpVariable(f"z_{d}", 0, 1, "Binary") for d in devices]
        self._constrain(layer)

    def _constrain(self, layer: LayerProblem) -> None:
        problem, x, y, z = self.problem, self.x, self.y, self.z
        weights = layer.weights.tolist()
        problem += pulp.lpSum(p * T for p, T in zip(weights, self.makespans, strict=True))
        for i in range(layer.items):
            self.deadline.check()
            problem += pulp.lpSum(x[i, d] for d in range(layer.devices) if (i, d) in x) == 1
        for i, d in x:
            self.deadline.check()
            problem += x[i, d] <= y[int(layer.group_of[i]), d]
        for g, d in y:
            self.deadline.check()
            problem += y[g, d] <= z[d]
        placed_at: dict[int, list[tuple[int, pulp.LpVariable]]] = defaultdict(list)
        held_at: dict[int, list[tuple[int, pulp.LpVariable]]] = defaultdict(list)
        for (i, d), variable in x.items():
            placed_at[d].append((i, variable))
        for (g, d), variable in y.items():
            held_at[d].append((g, variable))
        for d in range(layer.devices):
            self.deadline.check()
            for w, makespan in enumerate(self.makespans):
                work = [self.scale * float(layer.item_s[w, i, d]) * v for i, v in placed_at[d]]
                held = [self.scale * float(layer.group_s[w, g, d]) * v for g, v in held_at[d]]
                launch = self.scale * float(layer.launch_s[w, d]) * z[d]
                problem += pulp.lpSum([*work, *held, launch]) <= makespan
            if layer.slots is not None:
                problem += pulp.lpSum(v for _, v in held_at[d]) <= layer.slots
                problem += z[d] == 1
            if layer.equal_counts:
                problem += pulp.lpSum(v for _, v in placed_at[d]) == int(layer.counts[d])

    def start_from(self, assignment: Assignment) -> None:
        """Give CBC a complete feasible start."""
        for (i, d), variable in self.x.items():
            variable.setInitialValue(int(assignment[i] == d))
        for (g, d), variable in self.y.items():
            variable.setInitialValue(int((assignment[self.layer.group_of == g] == d).any()))
        for d, variable in enumerate(self.z):
            variable.setInitialValue(int((assignment == d).any() or self.layer.slots is not None))
        for makespan, loads in zip(self.makespans, self.layer.loads(assignment), strict=True):
            makespan.setInitialValue(self.scale * float(loads.max()))

    def assignment(self) -> Assignment:
        """Device of every item: where most of it lies."""
        share: Floats = np.zeros((self.layer.items, self.layer.devices))
        for pair, variable in self.x.items():
            share[pair] = variable.value() or 0.0
        return np.asarray(share.argmax(axis=1), dtype=np.int64)


def ilp(
    layer: LayerProblem, known: LayerSolution, tolerance: float, deadline: Deadline
) -> LayerSolution:
    """Search from `known` until the gap is within `tolerance` or the deadline has come."""
    if np.count_nonzero(reachable(layer)) > MOST_PAIRS:
        return known
    scale = 1000 / known.makespan_s
    try:
        program = Formulation(layer, scale, deadline)
    except OutOfTimeError:
        return known
    program.start_from(canonical(layer, known.assignment))
    outcome = run_cbc(program.problem, tolerance / 2, deadline)
    if outcome == "nothing":
        return known
    better = known.place(layer, program.assignment(), searched=True)
    if outcome == "feasible":
        return better
    objective_s = float(pulp.value(program.problem.objective)) / scale
    proved_s = objective_s * (1 - tolerance / 2) * CBC_SAFETY
    return better.prove(lifted(layer, proved_s), "ilp (CBC)")


def write_lp(layer: LayerProblem, path: Path) -> None:
    """Write the program for any other solver (Gurobi, HiGHS, SCIP); times in microseconds."""
    with quiet():
        Formulation(layer, 1e6, Deadline(math.inf, Event())).problem.writeLP(str(path))
