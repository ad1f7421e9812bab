"""Covering a layer's items with fillings of devices: a placement within a capacity, or none.

The cutting-stock program over all its patterns (Gilmore & Gomory 1961), whole, solved by CP-SAT.
"""

import numpy as np
from ortools.sat.python import cp_model

from solver.placement.all_fillings import WholeCosts
from solver.placement.decided import Decided, Value, decide
from solver.placement.exact import Deadline, Effort
from solver.problem import Ints


def cover(costs: WholeCosts, fillings: Ints, deadline: Deadline, effort: Effort) -> Decided:
    """Whether as many of `fillings` [fillings, classes] as there are devices cover all items."""
    model = cp_model.CpModel()
    times = [model.new_int_var(0, costs.devices, "") for _ in fillings]
    for row, quantity in zip(fillings.T, costs.classes.quantity.tolist(), strict=True):
        if deadline.left_s <= 0:
            return Decided(None, impossible=False)
        with_it = np.flatnonzero(row)
        items = cp_model.LinearExpr.weighted_sum([times[i] for i in with_it], row[with_it].tolist())
        model.add(items >= quantity if costs.counts is None else items == quantity)
    if costs.counts is None:
        model.add(sum(times) == costs.devices)
    else:
        held = fillings.sum(axis=1)
        for count, devices in zip(*np.unique(costs.counts, return_counts=True), strict=True):
            model.add(sum(times[i] for i in np.flatnonzero(held == count)) == int(devices))

    def counts(value: Value) -> Ints:
        chosen = np.repeat(fillings, [value(x) for x in times], axis=0)
        return _once(costs, chosen)

    # Presolve took 2 to 15 times as long as the answer on MInference layers.
    return decide(model, counts, deadline, effort, presolve=False)


def _once(costs: WholeCosts, chosen: Ints) -> Ints:
    """The fillings as devices' counts `[classes, devices]`, no item done twice."""
    counts = np.zeros((len(costs.classes.quantity), costs.devices), dtype=np.int64)
    left = costs.classes.quantity.copy()
    order = _positions(costs, chosen)
    for device, filling in zip(order, chosen, strict=True):
        counts[:, device] = np.minimum(filling, left)
        left -= counts[:, device]
    return counts


def _positions(costs: WholeCosts, chosen: Ints) -> Ints:
    """The device of every filling: one that may hold so many items."""
    devices = np.arange(costs.devices)
    if costs.counts is None:
        return devices[: len(chosen)]
    by_count = devices[np.argsort(costs.counts, kind="stable")]
    positions = np.empty(len(chosen), dtype=np.int64)
    positions[np.argsort(chosen.sum(axis=1), kind="stable")] = by_count
    return positions
