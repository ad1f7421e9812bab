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


def relaxed_bound_s(layer: LayerProblem, least_s: Floats, deadline: Deadline) -> float:
    """What the relaxed program bounds the objective by, seconds; 0 where it was not solved in time.

    Devices of a type do alike in one of its optima, for it is convex: the program is that of one
    device of each type. `least_s` [workloads] bounds each makespan: a device whose launch takes
    less pays it, used or not, without harm.
    """
    _, first, count = np.unique(layer.type_of, return_index=True, return_counts=True)
    item_s, group_s, launch_s = (
        by_device[..., first] for by_device in (layer.item_s, layer.group_s, layer.launch_s)
    )
    items, groups, types = layer.items, layer.groups, len(first)
    paid = (launch_s <= least_s[:, None]) | (layer.slots is not None)
    launch_s = np.where(paid, launch_s, 0.0)
    scale = 1 / float(layer.blended_s[:, first].max())
    x = np.arange(items * types).reshape(items, types)
    y = x.size + np.arange(groups * types).reshape(groups, types)
    makespans = x.size + y.size + np.arange(layer.workloads)
    load_rows = np.arange(launch_s.size).reshape(launch_s.shape)
    presence_rows = launch_s.size + x
    height, variables = launch_s.size + x.size, x.size + y.size + layer.workloads
    inequalities, whole = _Triplets(), _Triplets()
    for w, row in enumerate(load_rows):
        inequalities.add(np.broadcast_to(row, x.shape), x, scale * item_s[w])
        inequalities.add(np.broadcast_to(row, y.shape), y, scale * group_s[w])
        inequalities.add(row, np.full(types, makespans[w]), np.full(types, -1.0))
    inequalities.add(presence_rows, x, np.ones(x.shape))
    inequalities.add(presence_rows, y[layer.group_of], np.full(x.shape, -1.0))
    every = np.broadcast_to(count.astype(np.float64), x.shape)
    whole.add(np.broadcast_to(np.arange(items)[:, None], x.shape), x, every)
    result = _minimise(
        np.concatenate([np.zeros(x.size + y.size), layer.weights]),
        inequalities.matrix(height, variables),
        np.concatenate([-scale * launch_s.ravel(), np.zeros(x.size)]),
        whole.matrix(items, variables),
        items,
        deadline,
    )
    if result is None:
        return 0.0
    # Of one device: a type's prices are shared out among its devices. What the program's value is
    # at least follows from any prices (Lagrange), so that it rests on no solver's tolerances.
    prices = np.maximum(-result.ineqlin.marginals, 0)
    loads, presence = prices[load_rows] / count, prices[presence_rows] / count / scale
    total = (loads * count).sum(axis=1, keepdims=True)
    loads *= np.divide(layer.weights[:, None], total, out=np.ones_like(total), where=total > 0)
    of_item = np.einsum("wt,wit->it", loads, item_s) + presence
    of_group = np.einsum("wt,wgt->gt", loads, group_s) - layer.members @ presence
    # A group is on no device more than once.
    spent = np.minimum(of_group, 0.0) * count
    return float((loads * launch_s * count).sum() + of_item.min(axis=1).sum() + spent.sum())


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
