"""What a solve comes back with: shares and a proven bound for every layer."""

from dataclasses import dataclass, replace
from typing import Self

from solver.problem import Assignment, LayerProblem
from solver.shares import Floats, Shares

LEAST_GAIN = 1e-7
"""Of a bound: a proof that is better by rounding alone does not take a plainer one's place."""

ROUNDING = 1e-12


@dataclass(frozen=True)
class Bound:
    """No placement of the layer has a smaller makespan than `seconds`; `proof` says why."""

    seconds: float
    proof: str


@dataclass(frozen=True, eq=False)
class LayerSolution:
    """Who does what of one layer's items, its makespan, and the best bound proved.

    `makespan_s` is the weighted sum over the workloads. Placement and bound get better each on its
    own.
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
        return self.shares.assignment

    def place(
        self, layer: LayerProblem, found: Assignment | None, *, searched: bool = False
    ) -> Self:
        """With another placement of whole items where that is better and obeys the rules.

        `searched`: an exact search found it.
        """
        if found is None or not layer.allows(found):
            return self
        loads = layer.loads(found)
        makespan_s = layer.objective(loads)
        if makespan_s > self.makespan_s * (1 - ROUNDING):
            # Of equals the flatter loads: they leave room where heads turn out longer than planned.
            tied = makespan_s <= self.makespan_s
            if not tied or _square(loads) >= _square(layer.loads_of_shares(self.shares)):
                return self
        searched = searched or self.searched
        return replace(self, shares=layer.whole(found), makespan_s=makespan_s, searched=searched)

    def prove(self, seconds: float, proof: str) -> Self:
        """With another bound where that is better; rounding never lets it pass what was reached."""
        if seconds <= self.bound.seconds * (1 + LEAST_GAIN):
            return self
        return replace(self, bound=Bound(min(seconds, self.makespan_s), proof))


def _square(loads: Floats) -> float:
    return float((loads**2).sum()) * (1 + ROUNDING)


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
    """How far a solve is: the layers settled, whose gap is within the tolerance, of all layers.

    `makespan_s` and `lower_bound_s`: the plan's as it stands, by the objective, summed over layers.
    """

    settled: int
    layers: int
    makespan_s: float
    lower_bound_s: float

    @property
    def gap(self) -> float:
        return 1 - self.lower_bound_s / self.makespan_s
