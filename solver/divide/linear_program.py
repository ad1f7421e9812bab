"""Shares as a linear program, for unlike devices (R||Cmax) and several workloads.

    minimise sum_w weight_w T_w
    sum_d x[i, d] = 1                                          every item is done
    launch_s + sum_g group_s y + sum_i item_s x <= T_w         every workload and device
    x[i, d] <= y[g(i), d] <= 1                                 presence of groups

Relaxed, all variables are fractions and the value bounds every placement; that bound is computed
again from the duals (Lagrange), so that it does not rest on a solver's tolerances. On a fixed
support, the pairs of item and device that may be used, the charges are constants and the program
gives the best shares; a vertex divides at most W (G - 1) items (Lawler & Labetoulle 1978).
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array

from solver.deadline import Deadline
from solver.problem import LayerProblem
from solver.shares import Floats, Ints, Shares

MOST_ROUNDS = 4
"""Of dropping what the best shares leave unused: its charges go with it."""


def best_shares(layer: LayerProblem, support: Shares, deadline: Deadline) -> Shares | None:
    """The best shares on the pairs of others; None where the program was not solved in time."""
    best: Shares | None = None
    for _ in range(MOST_ROUNDS):
        if deadline.left_s <= 0:
            break
        shares = _on_support(layer, support, deadline)
        if shares is None:
            break
        best = shares
        if len(shares.item) == len(support.item):
            break
        support = shares
    return best


def vertex(layer: LayerProblem, deadline: Deadline) -> Shares | None:
    """A vertex with everything allowed and every charge spread over what it serves.

    Slope scaling (Kim & Pardalos 1999): a group's charge is divided by the items it served on that
    device in the solution before, so that groups gather where they already are.
    """
    everywhere = Shares.of(np.ones((layer.items, layer.devices)))
    served = np.broadcast_to(layer.members.sum(axis=1, keepdims=True), layer.group_s.shape[1:])
    best: Shares | None = None
    best_s = np.inf
    for _ in range(MOST_ROUNDS):
        slope_s = (layer.group_s / np.maximum(served, 1.0))[:, layer.group_of]
        sloped = replace(
            layer,
            item_s=layer.item_s + slope_s,
            part_s=np.zeros_like(layer.part_s),
            group_s=np.zeros_like(layer.group_s),
        )
        shares = _on_support(sloped, everywhere, deadline) if deadline.left_s > 0 else None
        if shares is None:
            break
        reached_s = layer.objective(layer.loads_of_shares(shares))
        if reached_s < best_s:
            best, best_s = shares, reached_s
        served = layer.members @ shares.dense
    if best is not None and not layer.within_slots(best):
        best = _within_slots(layer, best, deadline)
    return best if best is None else _within_copies(layer, best, deadline)


def _within_slots(layer: LayerProblem, shares: Shares, deadline: Deadline) -> Shares | None:
    """The best shares on the devices with most of each group, as far as slots go."""
    assert layer.slots is not None  # else everything is within them
    amounts = layer.members @ (layer.blended_s * shares.dense)
    held = np.zeros(amounts.shape, dtype=bool)
    homeless: NDArray[np.bool_] = np.asarray(amounts.any(axis=1))
    for pair in np.argsort(-amounts, axis=None, kind="stable"):
        group, device = np.unravel_index(int(pair), amounts.shape)
        # A group that has no device yet keeps a slot.
        spare = layer.slots * layer.devices - held.sum() > homeless.sum() - homeless[group]
        useful = homeless[group] or (spare and amounts[group, device] > 0)
        if useful and held[:, device].sum() < layer.slots:
            held[group, device], homeless[group] = True, False
    return best_shares(layer, Shares.of(held[layer.group_of]), deadline)


def _within_copies(layer: LayerProblem, shares: Shares, deadline: Deadline) -> Shares | None:
    """The best shares on the largest parts of every item, at most `max_copies`."""
    copies = layer.max_copies or layer.devices
    if shares.parts.max() <= copies:
        return shares
    kept = np.zeros(shares.dense.shape)
    largest = np.argsort(-shares.dense, axis=1, kind="stable")[:, :copies]
    np.put_along_axis(kept, largest, np.take_along_axis(shares.dense, largest, axis=1), axis=1)
    return best_shares(layer, Shares.of(kept), deadline)


def _minimise(
    cost: Floats, inequalities: Any, limits: Floats, equalities: Any, ones: int, deadline: Deadline
) -> Any:
    """SciPy's HiGHS on non-negative variables; None where it found no optimum in time."""
    result = linprog(
        cost,
        A_ub=inequalities,
        b_ub=limits,
        A_eq=equalities,
        b_eq=np.ones(ones),
        bounds=(0, None),
        method="highs-ds",
        options={"time_limit": max(deadline.left_s, 1e-3)},
    )
    return result if result.status == 0 else None


def relaxed(
    layer: LayerProblem, least_s: Floats, deadline: Deadline
) -> tuple[Shares | None, float]:
    """Shares of the relaxed program, and its lower bound in seconds.

    `least_s` [workloads] bounds each makespan: a device whose launch takes less pays it, used or
    not, without harm.
    """
    items, groups, devices = layer.items, layer.groups, layer.devices
    paid = (layer.launch_s <= least_s[:, None]) | (layer.slots is not None)
    launch_s = np.where(paid, layer.launch_s, 0.0)
    scale = 1 / float(layer.blended_s.max())
    x = np.arange(items * devices).reshape(items, devices)
    y = x.size + np.arange(groups * devices).reshape(groups, devices)
    makespans = x.size + y.size + np.arange(layer.workloads)
    load_rows = np.arange(launch_s.size).reshape(launch_s.shape)
    presence_rows = launch_s.size + x
    height, variables = launch_s.size + x.size, x.size + y.size + layer.workloads
    inequalities, whole = _Triplets(), _Triplets()
    for w, row in enumerate(load_rows):
        inequalities.add(np.broadcast_to(row, x.shape), x, scale * layer.item_s[w])
        inequalities.add(np.broadcast_to(row, y.shape), y, scale * layer.group_s[w])
        inequalities.add(row, np.full(devices, makespans[w]), np.full(devices, -1.0))
    inequalities.add(presence_rows, x, np.ones(x.shape))
    inequalities.add(presence_rows, y[layer.group_of], np.full(x.shape, -1.0))
    whole.add(np.broadcast_to(np.arange(items)[:, None], x.shape), x, np.ones(x.shape))
    result = _minimise(
        np.concatenate([np.zeros(x.size + y.size), layer.weights]),
        inequalities.matrix(height, variables),
        np.concatenate([-scale * launch_s.ravel(), np.zeros(x.size)]),
        whole.matrix(items, variables),
        items,
        deadline,
    )
    if result is None:
        return None, 0.0
    prices = -result.ineqlin.marginals
    bound_s = _lagrangian_s(layer, launch_s, prices[load_rows], prices[presence_rows] / scale)
    item, device = np.indices(x.shape).reshape(2, -1)
    return Shares.cleaned(item, device, result.x[x].ravel(), items, devices), bound_s


def _lagrangian_s(layer: LayerProblem, launch_s: Floats, loads: Floats, presence: Floats) -> float:
    """What the program's value is at least, for any prices: they are mended to be feasible.

    loads [workloads, devices] price the loads, presence [items, devices] x <= y in seconds.
    """
    loads = np.maximum(loads, 0)
    loads *= _within(layer.weights[:, None], loads.sum(axis=1, keepdims=True))
    presence = np.maximum(presence, 0)
    charge = np.einsum("wd,wgd->gd", loads, layer.group_s)
    presence *= _within(charge, layer.members @ presence)[layer.group_of]
    each = np.einsum("wd,wid->id", loads, layer.item_s) + presence
    return float((loads * launch_s).sum() + each.min(axis=1).sum())


def _within(limit: Floats, total: Floats) -> Floats:
    """Factors, at most 1, that bring totals within the limit."""
    return np.asarray(np.divide(limit, total, out=np.ones_like(total), where=total > limit))


def _on_support(layer: LayerProblem, support: Shares, deadline: Deadline) -> Shares | None:
    """Only parts of items with a choice are variables; the rest is constant like the charges."""
    shares = support.even()
    free = np.flatnonzero(shares.share < 1)
    if not len(free):
        return shares
    loads = layer.loads_of_shares(shares)
    scale = 1 / layer.objective(loads)
    item, device, even = shares.item[free], shares.device[free], shares.share[free]
    work = scale * (layer.item_s[:, item, device] - layer.part_s[:, item, device])
    fixed = scale * loads - [np.bincount(device, own, layer.devices) for own in work * even]

    x = np.arange(len(free))
    makespans = len(x) + np.arange(layer.workloads)
    inequalities, whole = _Triplets(), _Triplets()
    for w, row in enumerate(np.arange(fixed.size).reshape(fixed.shape)):
        inequalities.add(row[device], x, work[w])
        inequalities.add(row, np.full(layer.devices, makespans[w]), np.full(layer.devices, -1.0))
    items, of_item = np.unique(item, return_inverse=True)
    whole.add(of_item, x, np.ones(len(x)))
    variables = len(x) + layer.workloads
    result = _minimise(
        np.concatenate([np.zeros(len(x)), layer.weights]),
        inequalities.matrix(fixed.size, variables),
        -fixed.ravel(),
        whole.matrix(len(items), variables),
        len(items),
        deadline,
    )
    if result is None:
        return None
    found = shares.share.copy()
    found[free] = result.x[x]
    return Shares.cleaned(shares.item, shares.device, found, layer.items, layer.devices)


class _Triplets:
    """A sparse matrix, put together from arrays of rows, columns and values."""

    def __init__(self) -> None:
        self.parts: list[tuple[Ints, Ints, Floats]] = []

    def add(self, rows: Ints, columns: Ints, values: Floats) -> None:
        self.parts.append((rows.ravel(), columns.ravel(), values.ravel()))

    def matrix(self, height: int, width: int) -> csr_array:
        rows, columns, values = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        return csr_array((values, (rows, columns)), shape=(height, width))
