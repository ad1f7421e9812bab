"""Sorted snake: xDiT's head balancer (PR #727), the only shipped one for attention heads.

Items sorted by cost are dealt 0, 1, ..., G-1, G-1, ..., 1, 0, 0, 1, ... xDiT requires G to divide
the heads; here a last partial round goes to the first devices, so that counts stay the agreed ones.
"""

import numpy as np

from solver.problem import Assignment, LayerProblem


def snake(layer: LayerProblem) -> Assignment:
    """Deal the items, longest first, forwards and backwards over the devices."""
    order = np.argsort(-layer.blended_s.mean(axis=1), kind="stable")
    rounds, places = np.divmod(np.arange(layer.items), layer.devices)
    full_rounds, left_over = divmod(layer.items, layer.devices)
    width = np.where(rounds < full_rounds, layer.devices, left_over)
    assignment = np.empty(layer.items, dtype=np.int64)
    assignment[order] = np.where(rounds % 2 == 0, places, width - 1 - places)
    return assignment
