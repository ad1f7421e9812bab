"""MULTIFIT: first-fit decreasing within ever smaller makespans.

Coffman, Garey & Johnson 1978, "An application of bin-packing to multiprocessor scheduling". Where
a device gets two to four items it is often better than the longest first.
"""

import numpy as np

from solver.heuristics.greedy import greedy, room
from solver.problem import Assignment, LayerProblem

HALVINGS = 12


def multifit(layer: LayerProblem) -> Assignment:
    """The placement of the least makespan tried that everything fits in, else the greedy one.

    Items cost what they do on the first device with their group's charge: for identical devices.
    """
    charge_s = np.tensordot(layer.weights, layer.group_s[..., 0], 1)
    cost = layer.blended_s[:, 0] + charge_s[layer.group_of]
    best = greedy(layer)
    low = max(float(cost.max()), float(cost.sum()) / layer.devices)
    high = float(np.bincount(best, cost, layer.devices).max())
    order = np.argsort(-cost, kind="stable")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = _first_fit(layer, cost, order, middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    return best


def _first_fit(
    layer: LayerProblem, cost: np.ndarray, order: np.ndarray, within_s: float
) -> Assignment | None:
    """Every item on the first device that has room for it, the longest first."""
    left_s = np.full(layer.devices, within_s)
    left = room(layer).copy()
    assignment = np.empty(layer.items, dtype=np.int64)
    for item in order.tolist():
        fits = (left_s >= cost[item]) & (left > 0)
        device = int(fits.argmax())
        if not fits[device]:
            return None
        assignment[item] = device
        left_s[device] -= cost[item]
        left[device] -= 1
    return assignment
