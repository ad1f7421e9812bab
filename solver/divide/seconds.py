"""A layer in plain numbers, for the methods that fill device after device."""

from dataclasses import dataclass, replace

import numpy as np

from solver.problem import LayerProblem

Piece = tuple[int, int, float]
"""An item, a device, and the share of the item that it does."""

FULL = 1e-9
"""A device with less room than this share of the level left is full."""


@dataclass(frozen=True)
class Seconds:
    """A layer in plain numbers; work is what can be divided.

    Unlike devices are filled as if they did everything by a factor quicker or slower, `speed`
    [devices]: all items on one of each type, beside the mean of the types. work, part and charge
    are seconds at speed 1, `launch` [devices] a device's own.
    """

    work: list[float]
    part: list[float]
    group: list[int]
    charge: list[float]
    launch: list[float]
    speed: list[float]
    copies: int
    slots: int

    @classmethod
    def of(cls, layer: LayerProblem) -> "Seconds":
        """The first workload of a layer."""
        _, first, of_type = np.unique(layer.type_of, return_index=True, return_inverse=True)
        item_s, part_s, group_s = (
            by_device[0][:, first] for by_device in (layer.item_s, layer.part_s, layer.group_s)
        )
        whole_s = item_s.sum(axis=0) + group_s.sum(axis=0)
        # Where nothing takes time, any speed will do.
        speed = np.divide(whole_s.mean(), whole_s, out=np.ones_like(whole_s), where=whole_s > 0)
        return cls(
            work=((item_s - part_s) * speed).mean(axis=1).tolist(),
            part=(part_s * speed).mean(axis=1).tolist(),
            group=layer.group_of.tolist(),
            charge=(group_s * speed).mean(axis=1).tolist(),
            launch=layer.launch_s[0].tolist(),
            speed=speed[of_type].tolist(),
            copies=min(layer.max_copies or layer.devices, layer.devices),
            slots=layer.slots or layer.groups,
        )

    @property
    def devices(self) -> int:
        return len(self.speed)

    def rooms(self, level: float) -> list[float]:
        """What every device can do until `level`, seconds on its clock, in seconds at speed 1."""
        each = zip(self.speed, self.launch, strict=True)
        return [(level - launch) * speed for speed, launch in each]

    def some(self, parts: dict[int, float], devices: int) -> "Seconds":
        """Shares of some items alone, in that order, on so many of devices that are all alike."""
        return replace(
            self,
            work=[self.work[item] * share for item, share in parts.items()],
            part=[self.part[item] for item in parts],
            group=[self.group[item] for item in parts],
            launch=self.launch[:devices],
            speed=self.speed[:devices],
            copies=min(self.copies, devices),
        )

    def mean(self) -> float:
        """The mean load of devices that are all alike, every group charged once."""
        charges = sum(self.charge[group] for group in set(self.group))
        return self.launch[0] + (sum(self.work) + sum(self.part) + charges) / self.devices
