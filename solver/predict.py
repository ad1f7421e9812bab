"""A plan's problem and its loads again: as planned, or under rates learned since."""

from collections.abc import Mapping

import numpy as np

from profiles.cost.rates import Rates
from profiles.cost.work import FEATURES, INDEX, group_work, head_work
from solver.costs import placement_problem
from solver.plan import Plan
from solver.problem import Assignment, Floats, PlacementProblem
from solver.request import PlacementOptions


def planned_problem(plan: Plan) -> PlacementProblem:
    """The problem a plan was made for, from the costs it carries."""
    return PlacementProblem(
        head_s=np.array(plan.costs.head_s),
        group_s=np.array(plan.costs.group_s),
        launch_s=np.array(plan.costs.launch_s),
        type_of=np.array([plan.device_types.index(name) for name in plan.devices]),
        unit=plan.rules.unit,
        equal_counts=plan.rules.equal_counts,
    )


def predicted_loads(plan: Plan, rates: Mapping[str, Rates]) -> Floats:
    """Seconds of every device under `rates` (by device type), [layers, devices]."""
    problem = placement_problem(
        np.array(plan.budgets),
        plan.architecture,
        plan.workload.workload,
        plan.devices,
        rates,
        PlacementOptions(unit="head"),
    )
    return np.array([problem.layer(i).loads(_devices(plan, i)) for i in range(problem.layers)])


def shard_work(plan: Plan, layer: int) -> Floats:
    """Work of every device's shard of a layer, [devices, FEATURES]; 0 with nothing to do."""
    budgets, step = np.array(plan.budgets, dtype=np.float64), plan.workload.workload
    by_head = head_work(budgets[layer], plan.architecture, step)
    by_group = group_work(budgets[[layer]], plan.architecture, step)[0]
    work = np.zeros((len(plan.devices), len(FEATURES)))
    np.add.at(work, _devices(plan, layer), by_head)
    groups = np.arange(len(by_head)) // plan.architecture.group_size
    for group, device in set(zip(groups.tolist(), _devices(plan, layer).tolist(), strict=True)):
        work[device] += by_group[group]
    work[work.any(axis=1), INDEX["launches"]] = 1
    return work


def _devices(plan: Plan, layer: int) -> Assignment:
    return np.array([entries[0].device for entries in plan.layers[layer].heads], dtype=np.int64)
