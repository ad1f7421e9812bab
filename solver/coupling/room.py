"""What the layers share: the devices' memory, and what they hold under the current plan."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from solver.coupling.bytes import Footprint, fetched_pairs
from solver.coupling.relabel import Columns, relabel
from solver.deadline import Deadline
from solver.exact.symmetry import device_classes
from solver.problem import Floats, Ints, PlacementProblem, Shares
from solver.solution import LayerSolution

GRACE_S = 0.1


def with_grace(deadline: Deadline) -> Deadline:
    """Some time even past the deadline, so that what fits in memory at once is not missed."""
    return Deadline(max(deadline.at, time.monotonic() + GRACE_S), deadline.cancelled)


@dataclass(frozen=True, eq=False)
class Room:
    """Limits `[devices]` in bytes, or None; `held_now` [layers, heads, devices] shares, or None."""

    problem: PlacementProblem
    footprint: Footprint
    limits: Floats | None
    held_now: Shares | None

    @cached_property
    def classes(self) -> list[Ints]:
        """Devices that may trade places in a layer."""
        return device_classes(self.problem.layer(0))

    def held_bytes(self, layer: int, shares: Shares) -> Floats:
        """Bytes of one layer, `[devices]`, for shares of the problem's items."""
        return self.footprint.held_bytes(layer, self.problem.shares_of_heads(shares))

    def held(self, solutions: Sequence[LayerSolution]) -> Floats:
        """Bytes, `[layers, devices]`."""
        return np.array([self.held_bytes(i, s.shares) for i, s in enumerate(solutions)])

    def overruns(self, solutions: Sequence[LayerSolution]) -> Floats:
        """Bytes above the limits, `[devices]`."""
        totals = self.held(solutions).sum(axis=0)
        return np.zeros_like(totals) if self.limits is None else np.maximum(totals - self.limits, 0)

    def rank(self, solutions: Sequence[LayerSolution]) -> tuple[float, float]:
        """What is better comes first: less above the limits, then fewer seconds."""
        return float(self.overruns(solutions).max()), sum(s.makespan_s for s in solutions)

    def relabelled(
        self, solutions: Sequence[LayerSolution], deadline: Deadline
    ) -> list[LayerSolution]:
        """The same solutions with identical devices dealt out anew, layer by layer."""
        fetched = None if self.held_now is None else self._fetched(solutions, deadline)
        columns = Columns(self.classes, self.held(solutions), fetched, self.limits)
        pairs = zip(solutions, relabel(columns, deadline), strict=True)
        return [replace(s, shares=s.shares[:, taken]) for s, taken in pairs]

    def _fetched(self, solutions: Sequence[LayerSolution], deadline: Deadline) -> Floats | None:
        """Bytes a device lacks of a column now, `[layers, columns, devices]`; None out of time."""
        assert self.held_now is not None
        lacking = []
        for index, (solution, now) in enumerate(zip(solutions, self.held_now, strict=True)):
            if deadline.left_s <= 0:
                return None
            wanted = self.problem.shares_of_heads(solution.shares)
            held = (self.footprint.holdings(index, shares) for shares in (wanted, now))
            lacking.append(fetched_pairs(*held))
        return np.array(lacking)
