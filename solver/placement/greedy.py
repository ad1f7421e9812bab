"""Longest processing time first (Graham 1969): the placement of the S-HPLB paper, section 3.3.

Sort heads by cost, give each to the device that would finish it first. Like the paper it looks at
the heads alone: what a scattered KV group costs is charged to the result, not seen by the choice.
"""

import numpy as np

from solver.problem import Assignment, Ints, LayerProblem


def greedy(layer: LayerProblem) -> Assignment:
    """Longest first, any number of items a device (unless the problem asks for equal counts)."""
    unlimited = np.full(layer.devices, layer.items, dtype=np.int64)
    return longest_first(layer, layer.counts if layer.equal_counts else unlimited)


def longest_first(layer: LayerProblem, room: Ints) -> Assignment:
    """Longest first among the devices that have room for another item, `room [devices]`."""
    loads = np.zeros(layer.devices)
    room = room.copy()
    assignment = np.empty(layer.items, dtype=np.int64)
    for item in np.argsort(-layer.item_s.mean(axis=1), kind="stable"):
        finish = np.where(room > 0, loads + layer.item_s[item], np.inf)
        device = int(finish.argmin())
        assignment[item] = device
        loads[device] = finish[device]
        room[device] -= 1
    return assignment
