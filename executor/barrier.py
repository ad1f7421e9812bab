"""Ranks that wait for each other after every layer: what all take, and what they wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Barrier:
    """Seconds of a step: of each rank over all layers, `[ranks]`, and of every layer's slowest."""

    ranks_s: tuple[float, ...]
    slowest_s: float

    @classmethod
    def of(cls, layers: Sequence[Sequence[float]]) -> Self:
        """From seconds `[layers][ranks]`.

        >>> Barrier.of([[2.0, 1.0], [1.0, 4.0]])
        Barrier(ranks_s=(3.0, 5.0), slowest_s=6.0)
        """
        sums = tuple(sum(mine) for mine in zip(*layers, strict=True))
        return cls(sums, sum(max(seconds) for seconds in layers))

    @property
    def mean_s(self) -> float:
        """What a step of ranks that never wait would take."""
        return sum(self.ranks_s) / len(self.ranks_s)

    @property
    def bubble(self) -> float:
        """Share of the ranks' time that they wait; 0 where nothing is done."""
        return 1 - self.mean_s / self.slowest_s if self.slowest_s else 0.0
