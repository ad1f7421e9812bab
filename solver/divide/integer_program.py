"""The least makespan of divided items as an integer program in PuLP, solved by its bundled CBC.

    sum_d x[i, d] = 1                                            every item is done
    x[i, d] <= p[i, d] <= y[g(i), d]                             parts of items, groups present
    sum_d p[i, d] <= max_copies, sum_g y[g, d] <= slots
    launch_s + sum_g group_s y + sum_i [(item_s - part_s) x + part_s p] <= T_w

with x in fractions, p and y binary: minimise sum_w weight_w T_w. Several workloads and unlike
devices need it; where neither is, wrap-around and components are as good. Times are scaled so that
the start's makespan is 1000: CBC's tolerances are absolute.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pulp

from solver.deadline import Deadline
from solver.divide.linear_program import best_shares
from solver.exact.cbc import CBC_SAFETY, LEAST_TIME_S, quiet, run_cbc
from solver.problem import LayerProblem
from solver.shares import Floats, Shares
from solver.solution import Bound

MOST_PAIRS = 1500
"""Pairs of item and device up to which the program is of any help."""

SCALE = 1000
LEAST_PART = 1e-6
"""What CBC's tolerance lets an x be above a p of 0."""


@dataclass(frozen=True, eq=False)
class Searched:
    """Shares no worse than the start's, and a bound where the program was solved to the end."""

    shares: Shares
    bound: Bound | None = None


def least_makespan(
    layer: LayerProblem, start: Shares, least_s: Floats, tolerance: float, deadline: Deadline
) -> Searched:
    """Search for a smaller makespan; `least_s` [workloads] bounds each of them already."""
    start_s = layer.objective(layer.loads_of_shares(start))
    if not _worthwhile(layer, deadline):
        return Searched(start)
    program = _Program(layer, start_s, least_s)
    program.problem += program.makespan
    program.start_from(start)
    outcome = run_cbc(program.problem, tolerance / 2, deadline)
    if outcome == "nothing":
        return Searched(start)
    found = program.shares(deadline)
    better = layer.objective(layer.loads_of_shares(found)) < start_s
    bound = None
    if outcome == "optimal":
        seconds = float(pulp.value(program.makespan)) * start_s / SCALE
        bound = Bound(seconds * (1 - tolerance / 2) * CBC_SAFETY, "integer program (CBC)")
    return Searched(found if better else start, bound)


def _worthwhile(layer: LayerProblem, deadline: Deadline) -> bool:
    return layer.items * layer.devices <= MOST_PAIRS and deadline.left_s >= 2 * LEAST_TIME_S


def _name(letter: str, pair: tuple[int, int]) -> str:
    return f"{letter}_{pair[0]}_{pair[1]}"


class _Program:
    """Variables and constraints of one layer; the objective is the caller's."""

    def __init__(self, layer: LayerProblem, start_s: float, least_s: Floats) -> None:
        self.layer = layer
        scale = SCALE / start_s
        pairs = [(i, d) for i in range(layer.items) for d in range(layer.devices)]
        held = [(g, d) for g in range(layer.groups) for d in range(layer.devices)]
        with quiet():
            self.problem = pulp.LpProblem("divided", pulp.LpMinimize)
            self.times = [pulp.LpVariable(f"T_{w}", lowBound=0) for w in range(layer.workloads)]
            self.makespan = pulp.lpSum(
                float(weight) * time for weight, time in zip(layer.weights, self.times, strict=True)
            )
            self.x = {pair: pulp.LpVariable(_name("x", pair), 0, 1) for pair in pairs}
            self.p = {pair: pulp.LpVariable(_name("p", pair), 0, 1, "Binary") for pair in pairs}
            self.y = {pair: pulp.LpVariable(_name("y", pair), 0, 1, "Binary") for pair in held}
            self._constrain()
            paid = (layer.launch_s <= least_s[:, None]) | (layer.slots is not None)
            self._load(scale, np.where(paid, layer.launch_s, 0.0))

    def _constrain(self) -> None:
        layer, problem = self.layer, self.problem
        devices = range(layer.devices)
        for i in range(layer.items):
            problem += pulp.lpSum(self.x[i, d] for d in devices) == 1
            if layer.max_copies is not None and layer.max_copies < layer.devices:
                problem += pulp.lpSum(self.p[i, d] for d in devices) <= layer.max_copies
        for d in devices if layer.slots is not None else ():
            problem += pulp.lpSum(self.y[g, d] for g in range(layer.groups)) <= layer.slots
        for (i, d), part in self.p.items():
            problem += self.x[i, d] <= part
            problem += part <= self.y[int(layer.group_of[i]), d]
        if layer.identical:
            # Devices can be renamed so that the largest item is on the first.
            problem += self.p[self._largest(), 0] == 1

    def _load(self, scale: float, launch_s: Floats) -> None:
        layer = self.layer
        terms: dict[tuple[int, int], list[pulp.LpAffineExpression]] = defaultdict(list)
        work = layer.item_s - layer.part_s
        for w in range(layer.workloads):
            for (i, d), x in self.x.items():
                terms[w, d].append(scale * float(work[w, i, d]) * x)
                if layer.part_s[w, i, d]:
                    terms[w, d].append(scale * float(layer.part_s[w, i, d]) * self.p[i, d])
            for (g, d), y in self.y.items():
                terms[w, d].append(scale * float(layer.group_s[w, g, d]) * y)
        for (w, d), load in terms.items():
            self.problem += pulp.lpSum(load) + scale * float(launch_s[w, d]) <= self.times[w]

    def _largest(self) -> int:
        return int(self.layer.blended_s[:, 0].argmax())

    def start_from(self, shares: Shares) -> None:
        """Give CBC a complete feasible start."""
        layer = self.layer
        if layer.identical:
            first = int(shares.assignment[self._largest()])
            order = np.arange(layer.devices)
            order[[0, first]] = order[[first, 0]]
            shares = shares.dealt(order)
        loads = layer.loads_of_shares(shares)
        scale = SCALE / layer.objective(loads)
        present = set(
            zip(*(axis.tolist() for axis in shares.of_groups(layer.group_of)), strict=True)
        )
        for pair, variable in self.x.items():
            # A whole head may be a rounding error more than one.
            variable.setInitialValue(min(float(shares.dense[pair]), 1.0))
            self.p[pair].setInitialValue(int(shares.dense[pair] > 0))
        for pair, variable in self.y.items():
            variable.setInitialValue(int(pair in present))
        for variable, load in zip(self.times, loads.max(axis=1), strict=True):
            variable.setInitialValue(scale * float(load))

    def shares(self, deadline: Deadline) -> Shares:
        """The shares found, evened out by the linear program on their support."""
        value = {pair: variable.value() or 0.0 for pair, variable in self.x.items()}
        parts = [(*pair, share) for pair, share in value.items() if share > LEAST_PART]
        item, device, share = zip(*parts, strict=True)
        found = Shares.cleaned(item, device, share, self.layer.items, self.layer.devices)
        return best_shares(self.layer, found, deadline) or found
