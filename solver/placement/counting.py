"""Counting items of every class on every device: a placement within a capacity, or none.

A constraint program for CP-SAT with one number a class and device instead of one choice an item
and device; identical devices are numbered by the groups they hold.
"""

import numpy as np
from ortools.sat.python import cp_model

from solver.placement.all_fillings import WholeCosts
from solver.placement.decided import Decided, Value, decide
from solver.placement.exact import Deadline, Effort
from solver.problem import Ints


def count(costs: WholeCosts, room: int, deadline: Deadline, effort: Effort) -> Decided:
    """Whether all devices' loads can be at most `room`."""
    model = cp_model.CpModel()
    quantity, devices = costs.classes.quantity.tolist(), range(costs.devices)
    items = [[model.new_int_var(0, n, "") for _ in devices] for n in quantity]
    for row, n in zip(items, quantity, strict=True):
        model.add(sum(row) == n)
    groups = costs.groups()
    present = [[model.new_bool_var("") for _ in devices] for _ in groups]
    for holds, classes in zip(present, groups, strict=True):
        for d in devices:
            for k in classes:
                model.add(items[k][d] <= quantity[k] * holds[d])
        if len(classes):
            model.add_bool_or(holds)
    held = [sum((1 << g) * holds[d] for g, holds in enumerate(present[:60])) for d in devices]
    for d in devices:
        here = [row[d] for row in [*items, *present]]
        seconds = [*costs.item.tolist(), *costs.charge.tolist()]
        model.add(cp_model.LinearExpr.weighted_sum(here, seconds) <= room)
        if costs.counts is not None:
            model.add(sum(row[d] for row in items) == int(costs.counts[d]))
        if d and (costs.counts is None or costs.counts[d] == costs.counts[d - 1]):
            model.add(held[d - 1] >= held[d])

    def counts(value: Value) -> Ints:
        return np.array([[value(x) for x in row] for row in items], dtype=np.int64)

    return decide(model, counts, deadline, effort, presolve=True)
