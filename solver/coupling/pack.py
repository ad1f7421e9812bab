"""Whole KV groups packed into the devices' memory, all layers at once.

The placement that needs least memory keeps every group together. Largest first (first-fit
decreasing, Johnson 1973), on the device with room that would finish the group's layer first:
where all groups take the same bytes, it finds room for all whenever there is room.
"""

import numpy as np

from solver.coupling.bytes import Footprint
from solver.problem import Floats, Ints, PlacementProblem


def pack(problem: PlacementProblem, footprint: Footprint, limits: Floats) -> Ints | None:
    """The device of every KV group, `[layers, kv_heads]`, or None where the last find no room."""
    if problem.equal_counts:
        return None
    seconds = _group_seconds(problem)
    sizes = footprint.group_bytes
    left, loads = limits.copy(), np.zeros((problem.layers, problem.devices))
    devices = np.empty(sizes.shape, dtype=np.int64)
    order = np.lexsort((-seconds.mean(axis=-1).ravel(), -sizes.ravel()))
    for unit in order:
        layer, group = np.unravel_index(unit, sizes.shape)
        finish = loads[layer] + seconds[layer, group]
        finish[left < sizes[layer, group]] = np.inf
        device = int(finish.argmin())
        if not np.isfinite(finish[device]):
            return None
        devices[layer, group] = device
        left[device] -= sizes[layer, group]
        loads[layer, device] = finish[device]
    return devices


def _group_seconds(problem: PlacementProblem) -> Floats:
    """A whole group with its charge, mean over workloads, `[layers, kv_heads, devices]`."""
    heads_s = np.tensordot(problem.weights, problem.head_s, 1)
    charges_s = np.tensordot(problem.weights, problem.group_s, 1)
    grouped_s = heads_s.reshape(problem.layers, problem.kv_heads, -1, heads_s.shape[-1])
    return np.asarray((grouped_s.sum(axis=2) + charges_s)[..., problem.type_of])
