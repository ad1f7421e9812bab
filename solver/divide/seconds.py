"""A layer of identical devices in plain numbers, for the methods that fill device after device."""

from dataclasses import dataclass, replace

from solver.problem import LayerProblem

Piece = tuple[int, int, float]
"""An item, a device, and the share of the item that it does."""

FULL = 1e-9
"""A device with less room than this share of the level left is full."""


@dataclass(frozen=True)
class Seconds:
    """A layer of identical devices in plain numbers; work is what can be divided."""

    work: list[float]
    part: list[float]
    group: list[int]
    charge: list[float]
    launch: float
    devices: int
    copies: int
    slots: int

    @classmethod
    def of(cls, layer: LayerProblem) -> "Seconds":
        """The first workload of a layer."""
        return cls(
            work=(layer.item_s[0, :, 0] - layer.part_s[0, :, 0]).tolist(),
            part=layer.part_s[0, :, 0].tolist(),
            group=layer.group_of.tolist(),
            charge=layer.group_s[0, :, 0].tolist(),
            launch=float(layer.launch_s[0, 0]),
            devices=layer.devices,
            copies=min(layer.max_copies or layer.devices, layer.devices),
            slots=layer.slots or layer.groups,
        )

    def some(self, parts: dict[int, float], devices: int) -> "Seconds":
        """Shares of some items alone, in that order, on so many devices."""
        return replace(
            self,
            work=[self.work[item] * share for item, share in parts.items()],
            part=[self.part[item] for item in parts],
            group=[self.group[item] for item in parts],
            devices=devices,
            copies=min(self.copies, devices),
        )

    def mean(self) -> float:
        """The mean load, every group charged once."""
        charges = sum(self.charge[group] for group in set(self.group))
        return self.launch + (sum(self.work) + sum(self.part) + charges) / self.devices
