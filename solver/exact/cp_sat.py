"""The placement as a constraint program, solved by OR-tools' CP-SAT.

A variable says how many items of a class a device gets, so that interchangeable items are one.
Costs are rounded **down** to whole numbers (`solver.integers`). Symmetry among identical devices is
broken, `load <= T` stands in for the maximum, and the search stops at half the tolerance.
"""

import math
from collections.abc import Callable

import numpy as np
from ortools.sat.python import cp_model

from solver.bounds import lifted
from solver.deadline import Deadline, Effort, OutOfTimeError, stopping
from solver.exact.interchangeable import Classes, classes_of
from solver.exact.symmetry import canonical, reachable
from solver.integers import scale_of, seconds_of, whole
from solver.problem import Assignment, LayerProblem
from solver.shares import Floats, Ints
from solver.solution import LayerSolution

LEVELS = 50_000
"""Whole numbers of the start's makespan: what rounding down loses stays far below a tolerance
of 1e-3, and the numbers small enough for proofs in milliseconds."""

PARTS = 100_000
"""Whole parts that the workloads' weights are given in."""

PROOF = "cp_sat"


def cp_sat(
    layer: LayerProblem,
    known: LayerSolution,
    tolerance: float,
    deadline: Deadline,
    effort: Effort,
    tell: Callable[[LayerSolution], None],
) -> LayerSolution:
    """Search from `known` until the gap is within `tolerance` or the deadline has come.

    `tell` gets every better placement on the way.
    """
    # Identical devices all pay the launch if they do anything: it moves every load alike.
    launch_s = layer.launch_s[:, 0] if layer.identical else np.zeros(layer.workloads)
    apart_s = float(layer.weights @ launch_s)
    try:
        program = _Program(layer, known, launch_s, deadline)
    except OutOfTimeError:
        return known
    solver = cp_model.CpSolver()
    solver.parameters.relative_gap_limit = tolerance / 2

    def on_found(assignment: Assignment) -> None:
        tell(known.place(layer, assignment, searched=True))

    status = run(solver, program.model, deadline, effort, _Listener(program, on_found))
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    better = known.place(layer, program.assignment(solver.value), searched=True) if found else known
    if not found and status != cp_model.UNKNOWN:
        return better
    units = program.scale * (PARTS if layer.workloads > 1 else 1)
    bound = math.ceil(solver.best_objective_bound - 1e-6)
    return better.prove(lifted(layer, seconds_of(bound, units) + apart_s), PROOF)


def run(
    solver: cp_model.CpSolver,
    model: cp_model.CpModel,
    deadline: Deadline,
    effort: Effort,
    listener: cp_model.CpSolverSolutionCallback | None = None,
) -> int:
    """Solve until the deadline or until cancelled; CP-SAT's status."""
    solver.parameters.catch_sigint_signal = False
    effort.limit(solver.parameters, deadline.left_s)
    with stopping(deadline.cancelled, solver.stop_search):
        return int(solver.solve(model, listener))


class _Listener(cp_model.CpSolverSolutionCallback):
    """Passes every solution on as an assignment."""

    def __init__(self, program: "_Program", on_found: Callable[[Assignment], None]) -> None:
        super().__init__()
        self._program = program
        self._on_found = on_found

    def on_solution_callback(self) -> None:
        self._on_found(self._program.assignment(self.value))


class _Program:
    """Variables `items[class][device]`, the loads below T, and the start as a hint."""

    def __init__(
        self, layer: LayerProblem, known: LayerSolution, launch_s: Floats, deadline: Deadline
    ) -> None:
        """Raises OutOfTimeError where the deadline comes before it is whole."""
        self.layer = layer
        self.deadline = deadline
        self.classes: Classes = classes_of(layer)
        start = canonical(layer, known.assignment)
        most_s = float((layer.loads(start).max(axis=1) - launch_s).max())
        costs_s = np.concatenate([self.classes.cost_s.ravel(), self.classes.charge_s.ravel()])
        self.scale = scale_of(costs_s, most_s, LEVELS)
        self.model = cp_model.CpModel()
        self.items = self._items(start)
        self._bound_loads(known, start, float(layer.weights @ launch_s))

    def assignment(self, value: Callable[[cp_model.IntVar], int]) -> Assignment:
        """The placement by the variables' values."""
        counts = np.zeros((len(self.items), self.layer.devices), dtype=np.int64)
        for number, row in enumerate(self.items):
            counts[number, list(row)] = [value(x) for x in row.values()]
        return self.classes.placed(counts)

    def _items(self, start: Assignment) -> list[dict[int, cp_model.IntVar]]:
        """How many of every class a device has, for the devices that symmetry leaves it."""
        layer, classes = self.layer, self.classes
        counts = classes.counted(start, layer.devices)
        allowed = classes.counted_any(reachable(layer))
        items = []
        for number, quantity in enumerate(classes.quantity.tolist()):
            self.deadline.check()
            row = {
                int(d): self.model.new_int_var(0, quantity, f"x_{number}_{d}")
                for d in np.flatnonzero(allowed[number])
            }
            self.model.add(sum(row.values()) == quantity)
            for d, x in row.items():
                self.model.add_hint(x, int(counts[number, d]))
            items.append(row)
        return items

    def _bound_loads(self, known: LayerSolution, start: Assignment, apart_s: float) -> None:
        layer, classes, model = self.layer, self.classes, self.model
        item_cost = whole(classes.cost_s, self.scale)
        group_cost = whole(classes.charge_s, self.scale)
        launch_cost = whole(layer.launch_s, self.scale)
        makespans = [
            model.new_int_var(
                0, _most(item_cost[w], classes.quantity, group_cost[w], launch_cost[w]), f"T_{w}"
            )
            for w in range(layer.workloads)
        ]
        counts = classes.counted(start, layer.devices)
        for d in range(layer.devices):
            self.deadline.check()
            here = {number: row[d] for number, row in enumerate(self.items) if d in row}
            present = self._present(d, here, counts[:, d], group_cost[:, :, d])
            if layer.slots is not None:
                model.add(sum(present.values()) <= layer.slots)
            used = None
            if layer.slots is not None and not layer.identical:
                used = model.new_constant(1)
            elif not layer.identical and here:
                used = model.new_bool_var(f"z_{d}")
                for number, x in here.items():
                    model.add(x <= int(classes.quantity[number]) * used)
                model.add_hint(used, bool(counts[:, d].any()))
            for w, makespan in enumerate(makespans):
                load = [int(item_cost[w, number, d]) * x for number, x in here.items()]
                load += [int(group_cost[w, g, d]) * y for g, y in present.items()]
                if used is not None:
                    load.append(int(launch_cost[w, d]) * used)
                model.add(sum(load) <= makespan)
            if layer.equal_counts:
                model.add(sum(here.values()) == int(layer.counts[d]))
        self._minimise(makespans, self.scale * (known.bound.seconds - apart_s))

    def _present(
        self, d: int, here: dict[int, cp_model.IntVar], start: Ints, group_cost: Ints
    ) -> dict[int, cp_model.IntVar]:
        """Which groups a device holds: the charged ones, or where it has slots all of them."""
        model, classes = self.model, self.classes
        present = {}
        counted = group_cost.any(axis=0) | (self.layer.slots is not None)
        for g in np.flatnonzero(counted).tolist():
            own = [number for number in here if classes.group_of[number] == g]
            if not own:
                continue
            present[g] = model.new_bool_var(f"y_{g}_{d}")
            for number in own:
                model.add(here[number] <= int(classes.quantity[number]) * present[g])
            model.add_hint(present[g], bool(start[own].any()))
        return present

    def _minimise(self, makespans: list[cp_model.IntVar], known_bound: float) -> None:
        """The one makespan, or the sum weighted in whole parts, rounded down like the costs."""
        model, layer = self.model, self.layer
        if layer.workloads == 1:
            model.add(makespans[0] >= max(0, int(np.floor(known_bound * (1 - 1e-9)))))
            model.minimize(makespans[0])
            return
        parts = np.floor(PARTS * layer.weights).astype(np.int64)
        model.minimize(sum(int(p) * T for p, T in zip(parts, makespans, strict=True)))


def _most(item_cost: Ints, quantity: Ints, group_cost: Ints, launch_cost: Ints) -> int:
    """Everything on the device where it takes longest: no load is larger."""
    items = int(item_cost.max(axis=-1) @ quantity)
    return items + sum(int(costs.max(axis=-1).sum()) for costs in (group_cost, launch_cost))
