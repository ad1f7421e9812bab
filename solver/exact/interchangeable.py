"""Items that can be exchanged without changing any load: one KV group, one cost on every device.

Real layers repeat few distinct costs, so that a device is described by how many it has of each
class: far fewer placements than items on devices.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solver.problem import Assignment, LayerProblem
from solver.shares import Floats, Ints


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a layer's items.

    of_item [items]; cost_s [workloads, classes, devices]; group_of [classes]; quantity [classes]
    items; charge_s [workloads, groups, devices]. A charge that rides with the one item of its group
    is in the item's cost.
    """

    of_item: Ints
    cost_s: Floats
    group_of: Ints
    quantity: Ints
    charge_s: Floats

    def counted(self, assignment: Assignment, devices: int) -> Ints:
        """How many items of every class a device has, `[classes, devices]`."""
        counts = np.zeros((len(self.quantity), devices), dtype=np.int64)
        np.add.at(counts, (self.of_item, assignment), 1)
        return counts

    def counted_any(self, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where any of a class may go, `[classes, devices]`, for `allowed` [items, devices]."""
        found = np.zeros((len(self.quantity), allowed.shape[1]), dtype=bool)
        np.logical_or.at(found, self.of_item, allowed)
        return found

    def placed(self, counts: Ints) -> Assignment:
        """A placement with these counts `[classes, devices]`, the items of a class in order."""
        assignment = np.empty(len(self.of_item), dtype=np.int64)
        devices = np.arange(counts.shape[1])
        for number, row in enumerate(counts):
            assignment[self.of_item == number] = np.repeat(devices, row)
        return assignment

    def loads(self, layer: LayerProblem, counts: Ints, device: int) -> Floats:
        """Seconds of one device with each of these `counts` [fillings, classes], one workload."""
        members = np.arange(self.charge_s.shape[1])[:, None] == self.group_of
        present = counts @ members.T > 0
        own_s = counts @ self.cost_s[0, :, device] + present @ self.charge_s[0, :, device]
        return np.asarray(own_s + np.where(present.any(axis=1), layer.launch_s[0, device], 0.0))


def classes_of(layer: LayerProblem) -> Classes:
    """The classes of a layer's items, numbered as their first items come."""
    item_s, group_of, charge_s = layer.item_s, layer.group_of, layer.group_s
    if layer.additive:
        item_s, group_of = layer.item_with_charge_s(), np.zeros_like(group_of)
        charge_s = np.zeros_like(charge_s[:, :1])
    number: dict[tuple[int, bytes], int] = {}
    rows = zip(group_of.tolist(), item_s.transpose(1, 0, 2), strict=True)
    of_item = np.array([number.setdefault((g, row.tobytes()), len(number)) for g, row in rows])
    _, first, quantity = np.unique(of_item, return_index=True, return_counts=True)
    return Classes(of_item, item_s[:, first], group_of[first], quantity, charge_s)
