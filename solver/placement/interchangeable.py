"""Items that can be exchanged without changing any load: one KV group, one cost on every device.

Real layers repeat few distinct costs, so that a device is described by how many it has of each
class: far fewer placements than items on devices.
"""

from dataclasses import dataclass

import numpy as np

from solver.problem import Assignment, Floats, Ints, LayerProblem


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a layer of one workload.

    of_item [items]; cost_s [classes, devices]; group_of [classes]; quantity [classes] items.
    """

    of_item: Ints
    cost_s: Floats
    group_of: Ints
    quantity: Ints

    def counted(self, assignment: Assignment, devices: int) -> Ints:
        """How many items of every class a device has, `[classes, devices]`."""
        counts = np.zeros((len(self.quantity), devices), dtype=np.int64)
        np.add.at(counts, (self.of_item, assignment), 1)
        return counts

    def placed(self, counts: Ints) -> Assignment:
        """A placement with these counts `[classes, devices]`, the items of a class in order."""
        assignment = np.empty(len(self.of_item), dtype=np.int64)
        devices = np.arange(counts.shape[1])
        for number, row in enumerate(counts):
            assignment[self.of_item == number] = np.repeat(devices, row)
        return assignment


def classes_of(layer: LayerProblem) -> Classes:
    """The classes of a layer of one workload, numbered as their first items come."""
    number: dict[tuple[int, bytes], int] = {}
    rows = zip(layer.group_of.tolist(), layer.item_s[0], strict=True)
    of_item = np.array([number.setdefault((g, row.tobytes()), len(number)) for g, row in rows])
    _, first, quantity = np.unique(of_item, return_index=True, return_counts=True)
    return Classes(of_item, layer.item_s[0, first], layer.group_of[first], quantity)
