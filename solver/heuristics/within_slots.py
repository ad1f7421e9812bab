"""Heuristics that know nothing of slots, kept within them: whole KV groups take the place of heads.

Where groups are copied to equal numbers of devices (what engines do that have more devices than KV
heads), each group's heads are dealt out among its own devices.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from solver.heuristics.contiguous import contiguous
from solver.problem import Assignment, LayerProblem


def within_slots(
    heuristic: Callable[[LayerProblem], Assignment], layer: LayerProblem
) -> Assignment:
    """The heuristic's placement if it obeys the slots, else the like of it that does."""
    found = heuristic(layer)
    if layer.slots is None or layer.allows(found):
        return found
    if layer.equal_counts:
        return _of_copies(heuristic, layer)
    found = np.asarray(heuristic(layer.by_group())[layer.group_of], dtype=np.int64)
    return found if layer.allows(found) else contiguous(layer)


def _of_copies(heuristic: Callable[[LayerProblem], Assignment], layer: LayerProblem) -> Assignment:
    """Every group on the devices that have it in file order, its heads placed anew among them."""
    assignment = contiguous(layer).copy()
    for group in layer.present:
        items = np.flatnonzero(layer.group_of == group)
        devices = np.unique(assignment[items])
        alone = replace(
            layer,
            item_s=layer.item_s[:, items][:, :, devices],
            part_s=layer.part_s[:, items][:, :, devices],
            group_s=layer.group_s[:, [group]][:, :, devices],
            launch_s=layer.launch_s[:, devices],
            group_of=np.zeros(len(items), dtype=np.int64),
            type_of=layer.type_of[devices],
            slots=None,
        )
        assignment[items] = devices[heuristic(alone)]
    return assignment
