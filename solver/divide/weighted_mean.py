"""The mean load of unlike devices, each type by a weight, with the copies that a makespan forces.

Whatever weights types have (they are the multipliers of the devices' loads: Lagrange), the weighted
mean of loads is at most the makespan, and a group costs at least what it does on the best set of
types, each charged. Of a makespan T a device has no more than T - launch - charge for a group's
items, so that each of their seconds brings its part of the charge: what is proved of T falls as T
grows, and the largest level that is still below it bounds the makespan.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations, product
from math import inf
from typing import Self

import numpy as np

from solver.bounds import fastest_devices, least_level
from solver.deadline import Deadline
from solver.problem import LayerProblem
from solver.shares import Floats, Ints
from solver.solution import Bound

ROUNDS, STEPS = 10, 20
"""Of weights and a level in turn; of weights, each half as long as the one before."""

GAIN = 2.0**-23
"""Relatively, of a step of weights: with less, others who round otherwise would not go this way."""

NEAR = 2e-5
"""Of the bound, relatively, left to whoever proves it again with other weights."""

LEAST_ROOM = 1e-9
"""Of a level, at least, on every device: with none nothing could be there at all."""


def weighted_mean(layer: LayerProblem, deadline: Deadline) -> Bound:
    """What the weights found in time prove of a layer of one workload.

    A launch that takes less than the mean of the fastest devices is paid by idle ones too, without
    harm.
    """
    best = fastest_devices(layer).seconds
    weighed = _WeighedTypes.of(layer, best)
    weights = np.ones(len(weighed.count))
    for _ in range(ROUNDS):
        if deadline.left_s <= 0:
            break
        weights = weighed.best_weights(weights, best)
        level = least_level(partial(weighed.fits, weights), best, weighed.most_s)
        if level <= best * (1 + NEAR):
            break
        best = level
    return Bound(best * (1 - NEAR), "weighted mean load with the copies it forces")


@dataclass(frozen=True, eq=False)
class _WeighedTypes:
    """One workload's seconds on a device of each type, launches where they are always paid.

    item_s [items, types], charge_s [groups, types], launch_s, paid_s and count [types].
    """

    item_s: Floats
    charge_s: Floats
    group_of: Ints
    launch_s: Floats
    paid_s: Floats
    count: Ints

    @classmethod
    def of(cls, layer: LayerProblem, known_s: float) -> Self:
        _, first, count = np.unique(layer.type_of, return_index=True, return_counts=True)
        launch_s = layer.launch_s[0, first]
        return cls(
            item_s=layer.item_s[0][:, first],
            charge_s=layer.group_s[0][np.ix_(layer.present, first)],
            group_of=np.searchsorted(layer.present, layer.group_of),
            launch_s=launch_s,
            paid_s=np.where(launch_s <= known_s, launch_s, 0.0),
            count=count,
        )

    @property
    def most_s(self) -> float:
        """All on the slowest device."""
        each = self.item_s.sum(axis=0) + self.charge_s.sum(axis=0) + self.launch_s
        return float(each.max())

    def mean_s(self, weights: Floats, level: float) -> float:
        """The weighted mean load of whatever has a makespan below `level`."""
        room = np.maximum(level - self.launch_s - self.charge_s, LEAST_ROOM * level)
        item, charge = self.item_s * weights, self.charge_s * weights
        forced = item * (1 + self.charge_s / room)[self.group_of]
        least = np.full(len(charge), inf)
        for some in self._sets:
            held = charge[:, some].sum(axis=1) + self._by_group(item[:, some])
            least = np.minimum(least, np.maximum(held, self._by_group(forced[:, some])))
        each = weights * self.count
        return float((least.sum() + (each * self.paid_s).sum()) / each.sum())

    def fits(self, weights: Floats, level: float) -> bool:
        """Whether these weights say nothing against a makespan of `level`."""
        return self.mean_s(weights, level) <= level

    def best_weights(self, weights: Floats, level: float) -> Floats:
        """Those from which no step to and fro gains anything; only their ratios count."""
        best_s = self.mean_s(weights, level)
        types = range(1, len(weights))
        for step, t, change in product(range(STEPS), types, (2.0, 2.0, -1.0, -1.0)):
            tried = weights.copy()
            tried[t] += change * weights[t] / 2 ** (step + 1)
            found_s = self.mean_s(tried, level)
            if found_s > best_s * (1 + GAIN):
                weights, best_s = tried, found_s
        return weights

    @cached_property
    def _sets(self) -> list[list[int]]:
        types = range(len(self.count))
        return [list(some) for size in types for some in combinations(types, size + 1)]

    def _by_group(self, seconds: Floats) -> Floats:
        """The sums of groups' items, each where it takes least of some types."""
        least_s = seconds.min(axis=1)
        return np.bincount(self.group_of, least_s, len(self.charge_s)).astype(np.float64)
