"""The least makespan by an integer program of its own, solved by HiGHS: what the solver must reach.

Written from the definition in `solver.problem` alone, one device of one layer after another, in
plain loops: it shares no line with the solver, so that a mistake in one is not repeated here.
"""

from itertools import count

import numpy as np
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array

from solver.problem import PlacementProblem

ACCURACY = 1e-5
"""HiGHS' variables are this far from whole at most, and its optimum from the true one."""

Terms = dict[int, float]


class _Program:
    """Variables, each with its upper bound and whether it is whole, and rows over them."""

    def __init__(self) -> None:
        self.numbers = count()
        self.upper: list[float] = []
        self.whole: list[bool] = []
        self.rows: list[Terms] = []
        self.least: list[float] = []
        self.most: list[float] = []

    def variable(self, upper: float = np.inf, *, whole: bool = False) -> int:
        self.upper.append(upper)
        self.whole.append(whole)
        return next(self.numbers)

    def constrain(self, terms: Terms, least: float = -np.inf, most: float = np.inf) -> None:
        self.rows.append(terms)
        self.least.append(least)
        self.most.append(most)

    def minimum(self, objective: Terms) -> float:
        cost = np.zeros(len(self.upper))
        cost[list(objective)] = list(objective.values())
        entries = [(r, v, x) for r, row in enumerate(self.rows) for v, x in row.items()]
        row, column, value = (np.array(part) for part in zip(*entries, strict=True))
        matrix = coo_array((value, (row, column)), (len(self.rows), len(self.upper))).tocsr()
        found = milp(
            cost,
            integrality=np.array(self.whole, dtype=int),
            bounds=(0, np.array(self.upper)),
            constraints=LinearConstraint(matrix, np.array(self.least), np.array(self.most)),
            options={"mip_rel_gap": 0.0},
        )
        assert found.status == 0, found.message
        return float(found.fun)


def optimum(problem: PlacementProblem, *, worst: bool = False) -> float:
    """Seconds of the best plan there is: of the weighted mean of the workloads, or the worst one.

    Within `ACCURACY`, for costs about 1.
    """
    program = _Program()
    makespans = [_layer(program, problem, layer) for layer in range(problem.head_s.shape[1])]
    weights = problem.weights.tolist()
    if not worst:
        return program.minimum(
            {t: w for own in makespans for t, w in zip(own, weights, strict=True)}
        )
    largest = program.variable()
    for of_workload in zip(*makespans, strict=True):
        program.constrain({largest: -1.0, **dict.fromkeys(of_workload, 1.0)}, most=0)
    return program.minimum({largest: 1.0})


def _layer(program: _Program, problem: PlacementProblem, layer: int) -> list[int]:
    """One layer's placement; the variables of its makespans, one a workload."""
    workloads, _, heads, _ = problem.head_s.shape
    kv_heads, devices = problem.group_s.shape[2], len(problem.type_of)
    size = heads // kv_heads
    grouped = problem.unit == "kv_group"
    copied = grouped and devices > kv_heads and devices % kv_heads == heads % devices == 0
    share = [
        [program.variable(1, whole=not problem.divisible) for _ in range(devices)]
        for _ in range(heads)
    ]
    has = [[program.variable(1, whole=True) for _ in range(devices)] for _ in range(heads)]
    charged = [[program.variable(1, whole=True) for _ in range(devices)] for _ in range(kv_heads)]
    used = [program.variable(1, whole=True) for _ in range(devices)]
    for head in range(heads):
        program.constrain(dict.fromkeys(share[head], 1.0), 1, 1)
        for device in range(devices):
            program.constrain({share[head][device]: 1.0, has[head][device]: -1.0}, most=0)
            group = charged[head // size][device]
            program.constrain({has[head][device]: 1.0, group: -1.0}, most=0)
            program.constrain({group: 1.0, used[device]: -1.0}, most=0)
            first = share[head - head % size][device]
            if grouped and not copied and head % size:
                program.constrain({share[head][device]: 1.0, first: -1.0}, 0, 0)
        if problem.max_copies is not None:
            program.constrain(dict.fromkeys(has[head], 1.0), most=problem.max_copies)
    for device in range(devices if problem.slots is not None else 0):
        held = {charged[kv_head][device]: 1.0 for kv_head in range(kv_heads)}
        program.constrain(held, most=problem.slots)
        program.constrain({used[device]: 1.0}, 1, 1)
    for device in range(devices if copied else 0):
        program.constrain({charged[kv_head][device]: 1.0 for kv_head in range(kv_heads)}, most=1)
    if problem.equal_counts or copied:
        counted = share[:: size if grouped and not copied else 1]
        for device in range(devices):
            number = len(counted) // devices + (device < len(counted) % devices)
            program.constrain({row[device]: 1.0 for row in counted}, number, number)
    makespans = [program.variable() for _ in range(workloads)]
    for workload, makespan in enumerate(makespans):
        for device, kind in enumerate(problem.type_of.tolist()):
            load: Terms = {
                makespan: -1.0,
                used[device]: float(problem.launch_s[workload, kind]),
            }
            for head in range(heads):
                part = float(problem.part_s[workload, layer, head, kind])
                load[share[head][device]] = float(
                    problem.head_s[workload, layer, head, kind] - part
                )
                load[has[head][device]] = part
            for kv_head in range(kv_heads):
                load[charged[kv_head][device]] = float(
                    problem.group_s[workload, layer, kv_head, kind]
                )
            program.constrain(load, most=0)
    return makespans
