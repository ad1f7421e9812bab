"""What a solve comes back with: shares and a proven bound for every layer."""

from dataclasses import dataclass

import numpy as np

from solver.problem import Assignment, Floats, Shares


@dataclass(frozen=True)
class Bound:
    """No placement of the layer has a smaller makespan than `seconds`; `proof` says why."""

    seconds: float
    proof: str


@dataclass(frozen=True, eq=False)
class LayerSolution:
    """Who does what of one layer's items, its makespan, and the best bound proved.

    `shares` [items, devices]; `makespan_s` is the weighted sum over the workloads.
    """

    shares: Shares
    makespan_s: float
    bound: Bound
    searched: bool = False
    """Whether an exact search found it, not the quick start."""
    whole: Assignment | None = None
    """Where items may be divided, the best placement found that divides none."""

    @property
    def gap(self) -> float:
        return max(0.0, 1 - self.bound.seconds / self.makespan_s)

    @property
    def assignment(self) -> Assignment:
        """The device with most of each item, `[items]`: the placement where nothing is divided."""
        return np.asarray(self.shares.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Solution:
    """All layers, and why the search stopped short where it did.

    `lower_bound_s` bounds the whole plan. `multipliers` [workloads] are the weights under which
    the layers' makespans and bounds are stated.
    """

    layers: list[LayerSolution]
    lower_bound_s: float
    multipliers: Floats
    reason: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a solve is: layers settled, and the plan's makespan and bound as they stand."""

    settled: int
    layers: int
    makespan_s: float
    lower_bound_s: float

    @property
    def gap(self) -> float:
        return 1 - self.lower_bound_s / self.makespan_s
