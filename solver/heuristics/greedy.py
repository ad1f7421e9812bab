"""Longest processing time first (Graham 1969): the placement of the S-HPLB paper, section 3.3.

Sort heads by cost, give each to the device that would finish it first. Like the paper it looks at
the heads alone: what a scattered KV group costs is charged to the result, not seen by the choice.
`charged` sees it.
"""

import numpy as np

from solver.problem import Assignment, LayerProblem
from solver.shares import Floats, Ints


def greedy(layer: LayerProblem) -> Assignment:
    """Longest first, any number of items a device (unless the problem asks for equal counts)."""
    if layer.slots is not None:
        order = np.argsort(-layer.blended_s.mean(axis=1), kind="stable")
        return _one_by_one(layer, order, np.zeros((layer.groups, layer.devices)))
    return np.asarray(longest_first(layer.distinct(layer.blended_s)[None], room(layer))[0])


def room(layer: LayerProblem) -> Ints:
    """Items a device may hold, `[devices]`."""
    unlimited = np.full(layer.devices, layer.items, dtype=np.int64)
    return layer.counts if layer.equal_counts else unlimited


def longest_first(item_s: Floats, room: Ints) -> Ints:
    """Longest first in many layers at once: devices `[layers, items]`.

    `item_s` [layers, items, devices], of one device where all are alike; `room` [devices] is how
    many items a device may hold.
    """
    layers, items, _ = item_s.shape
    devices = len(room)
    every = np.arange(layers)
    order = np.argsort(-item_s.mean(axis=2), axis=1, kind="stable")
    loads, left = np.zeros((layers, devices)), np.tile(room, (layers, 1))
    assignment = np.empty((layers, items), dtype=np.int64)
    for item in order.T:
        finish = np.where(left > 0, loads + item_s[every, item], np.inf)
        device = finish.argmin(axis=1)
        assignment[every, item] = device
        loads[every, device] = finish[every, device]
        left[every, device] -= 1
    return assignment


def charged(layer: LayerProblem) -> Assignment:
    """Longest first that sees the charge a group's first item brings to a device.

    Groups by falling work, so that a group's items find the devices that already hold it; within
    a group, longest first.
    """
    item_s = layer.blended_s
    group_s = np.tensordot(layer.weights, layer.distinct(layer.group_s), 1)
    work = item_s.mean(axis=1)
    order = np.lexsort((-work, layer.group_of, -(layer.members @ work)[layer.group_of]))
    return _one_by_one(layer, order, group_s)


def _one_by_one(layer: LayerProblem, order: Ints, group_s: Floats) -> Assignment:
    """Every item in turn to the device that would finish it first, charges `group_s` included.

    Within the slots, of which every group not yet placed keeps one.
    """
    item_s = layer.blended_s
    loads, left = np.zeros(layer.devices), room(layer).copy()
    held = np.zeros((layer.groups, layer.devices), dtype=bool)
    assignment = np.empty(layer.items, dtype=np.int64)
    waiting = len(layer.present)
    for item in order:
        group = layer.group_of[item]
        finish = loads + item_s[item] + np.where(held[group], 0.0, group_s[group])
        fits = left > 0
        if layer.slots is not None:
            waiting -= not held[group].any()
            spare = layer.slots * layer.devices - held.sum() > waiting
            fits &= held[group] | (spare & (held.sum(axis=0) < layer.slots))
        device = int(np.where(fits, finish, np.inf).argmin())
        assignment[item] = device
        loads[device] = finish[device]
        held[group, device] = True
        left[device] -= 1
    return assignment
