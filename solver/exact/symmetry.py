"""Devices that can be exchanged, and placements numbered so that each is met once."""

import numpy as np

from solver.problem import Assignment, LayerProblem
from solver.shares import Ints


def device_classes(layer: LayerProblem) -> list[Ints]:
    """Devices that can be exchanged without changing anything: same type, same count asked."""
    keys = list(zip(layer.type_of, layer.counts * layer.equal_counts, strict=True))
    order = sorted(set(keys))
    return [np.array([d for d, k in enumerate(keys) if k == key]) for key in order]


def longest_order(layer: LayerProblem) -> Ints:
    """Items by falling cost."""
    return np.argsort(-layer.blended_s.mean(axis=1), kind="stable")


def reachable(layer: LayerProblem) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Which (item, device) pairs a solution needs, `[items, devices]`, once symmetry is broken.

    Numbering a class's devices by the first (longest) item they get, the i-th longest item only
    ever reaches the devices 0 to i of the class.
    """
    allowed = np.ones((layer.items, layer.devices), dtype=bool)
    rank = np.empty(layer.items, dtype=np.int64)
    rank[longest_order(layer)] = np.arange(layer.items)
    for devices in device_classes(layer):
        allowed[:, devices] = np.arange(len(devices))[None, :] <= rank[:, None]
    return allowed


def canonical(layer: LayerProblem, assignment: Assignment) -> Assignment:
    """The same placement with exchangeable devices numbered as `reachable` wants them."""
    renamed = np.arange(layer.devices)
    order = longest_order(layer)
    for devices in device_classes(layer):
        seen = list(dict.fromkeys(d for d in assignment[order] if d in devices))
        unused = [d for d in devices if d not in seen]
        renamed[[*seen, *unused]] = devices
    return np.asarray(renamed[assignment], dtype=np.int64)
