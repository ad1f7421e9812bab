"""The placement as an integer program in PuLP, solved by its bundled CBC, or written out as .lp.

    minimise T
    sum_d x[i, d] = 1                                   every item is placed once
    x[i, d] <= y[g(i), d] <= z[d]                       presence of groups, use of devices
    sum_i item_s x + sum_g group_s y + launch_s z <= T  every device
    sum_i x[i, d] = counts[d]                           where counts are equal

Times are scaled so that the start's makespan is 1000: CBC's tolerances are absolute.
"""

import os
import signal
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import numpy as np
import pulp

from profiles.errors import HplbError
from solver.placement.exact import Deadline, Found, canonical, reachable, stopping
from solver.problem import Assignment, Floats, LayerProblem

CBC_SAFETY = 1 - 1e-6
"""CBC accepts variables this far from feasible; its bounds are lowered by as much."""


LEAST_TIME_S = 0.05
"""CBC needs this long to read a layer's program; with less it is not started."""


class SolverMissingError(HplbError):
    """The solver's program is not there or does not run."""


class Formulation:
    """The program of one layer: `x [items, devices]` (None where symmetry rules a pair out)."""

    def __init__(self, layer: LayerProblem, scale: float) -> None:
        items, devices = range(layer.items), range(layer.devices)
        allowed = reachable(layer)
        self.layer = layer
        self.scale = scale
        with _quiet():
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
            problem += pulp.lpSum(x[i, d] for d in range(layer.devices) if (i, d) in x) == 1
        for i, d in x:
            problem += x[i, d] <= y[int(layer.group_of[i]), d]
        for g, d in y:
            problem += y[g, d] <= z[d]
        placed_at: dict[int, list[tuple[int, pulp.LpVariable]]] = defaultdict(list)
        held_at: dict[int, list[tuple[int, pulp.LpVariable]]] = defaultdict(list)
        for (i, d), variable in x.items():
            placed_at[d].append((i, variable))
        for (g, d), variable in y.items():
            held_at[d].append((g, variable))
        for d in range(layer.devices):
            for w, makespan in enumerate(self.makespans):
                work = [self.scale * float(layer.item_s[w, i, d]) * v for i, v in placed_at[d]]
                held = [self.scale * float(layer.group_s[w, g, d]) * v for g, v in held_at[d]]
                launch = self.scale * float(layer.launch_s[w, d]) * z[d]
                problem += pulp.lpSum([*work, *held, launch]) <= makespan
            if layer.equal_counts:
                problem += pulp.lpSum(v for _, v in placed_at[d]) == int(layer.counts[d])

    def start_from(self, assignment: Assignment) -> None:
        """Give CBC a complete feasible start."""
        for (i, d), variable in self.x.items():
            variable.setInitialValue(int(assignment[i] == d))
        for (g, d), variable in self.y.items():
            variable.setInitialValue(int((assignment[self.layer.group_of == g] == d).any()))
        for d, variable in enumerate(self.z):
            variable.setInitialValue(int((assignment == d).any()))
        for makespan, loads in zip(self.makespans, self.layer.loads(assignment), strict=True):
            makespan.setInitialValue(self.scale * float(loads.max()))

    def solve(
        self, time_s: float | None, gap: float, cancelled: Event, *, warm: bool = False
    ) -> int:
        """Run CBC; the status tells an optimum from a time-out (PuLP's `status` does not)."""
        with (
            _quiet(),
            TemporaryDirectory(prefix="hplb-cbc-") as folder,
            stopping(cancelled, partial(_kill_cbc, folder)),
        ):
            cbc = pulp.PULP_CBC_CMD(msg=False, timeLimit=time_s, gapRel=gap, warmStart=warm)
            if not cbc.available():
                raise SolverMissingError(f"PuLP's bundled CBC does not run here: {cbc.path}")
            cbc.tmpDir = folder
            try:
                self.problem.solve(cbc)
            except pulp.PulpSolverError:
                # Cancelled; or CBC crashed, as 2.10 does when time is up during preprocessing.
                return int(pulp.LpSolutionNoSolutionFound)
        return int(self.problem.sol_status)

    def assignment(self) -> Assignment:
        """Device of every item: where most of it lies."""
        share: Floats = np.zeros((self.layer.items, self.layer.devices))
        for pair, variable in self.x.items():
            share[pair] = variable.value() or 0.0
        return np.asarray(share.argmax(axis=1), dtype=np.int64)


def ilp(layer: LayerProblem, start: Assignment, tolerance: float, deadline: Deadline) -> Found:
    """Search from `start` until the gap is within `tolerance` or the deadline has come."""
    if deadline.left_s < LEAST_TIME_S:
        return Found(None, 0.0, "ilp had no time")
    scale = 1000 / layer.makespan(start)
    program = Formulation(layer, scale)
    program.start_from(canonical(layer, start))
    status = program.solve(
        max(deadline.left_s, LEAST_TIME_S), tolerance / 2, deadline.cancelled, warm=True
    )
    if status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        return Found(None, 0.0, "ilp found nothing")
    proved = status == pulp.LpSolutionOptimal
    objective = float(pulp.value(program.problem.objective)) / scale
    bound = objective * (1 - tolerance / 2) * CBC_SAFETY if proved else 0.0
    return Found(program.assignment(), bound, "ilp (CBC)")


def write_lp(layer: LayerProblem, path: Path) -> None:
    """Write the program for any other solver (Gurobi, HiGHS, SCIP); times in microseconds."""
    with _quiet():
        Formulation(layer, 1e6).problem.writeLP(str(path))


def _kill_cbc(folder: str) -> None:
    """End the CBC that works in `folder`: PuLP keeps its process to itself, Linux does not."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"cbc") and any(folder.encode() in word for word in words):
                os.kill(int(entry.name), signal.SIGKILL)


@contextmanager
def _quiet() -> Iterator[None]:
    """PuLP 3.3 announces what 4.0 renames on every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
