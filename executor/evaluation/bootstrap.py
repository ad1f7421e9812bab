"""Confidence intervals of average scores: the paired bootstrap, each task resampled by itself.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3).
Samples are drawn once for all methods, so that differences between methods are paired. Where
every sample scores alike an interval has no width: the bootstrap cannot see what never occurred.
Where there is one sample of each task there is nothing to draw from, and no interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 4000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its 95 % interval, None where there is none."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float, resampled: Floats | None) -> Self:
        if resampled is None:
            return cls(float(value), None, None)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(resampled, [tail, 1 - tail])
        return cls(float(value), float(low), float(high))

    @property
    def wider(self) -> float | None:
        """From the estimate to the end that is farther."""
        if self.low is None or self.high is None:
            return None
        return max(self.high - self.value, self.value - self.low)


@dataclass(frozen=True, eq=False)
class Resampled:
    """Averages over tasks of one method: the estimate, and one for every resample [resamples].

    There are no resamples of one sample a task.
    """

    value: float
    resamples: Floats | None

    @property
    def interval(self) -> Interval:
        return Interval.of(self.value, self.resamples)

    def less(self, other: "Resampled") -> Interval:
        """By how much this is above `other`, pair by pair."""
        value = self.value - other.value
        if self.resamples is None or other.resamples is None:
            return Interval.of(value, None)
        return Interval.of(value, self.resamples - other.resamples)


def resample(
    scores: Mapping[str, Sequence[Floats]], seed: int, resamples: int = RESAMPLES
) -> dict[str, Resampled]:
    """`scores[method][task]` [samples] of the same samples; every task counts alike."""
    random = np.random.default_rng(seed)
    sizes = [len(task) for task in next(iter(scores.values()))]
    drawn = [random.integers(0, size, (resamples, size)) for size in sizes]

    def redrawn(tasks: Sequence[Floats]) -> Floats | None:
        if max(sizes) == 1:
            return None
        means = [task[which].mean(axis=1) for task, which in zip(tasks, drawn, strict=True)]
        return np.asarray(np.mean(means, axis=0))

    return {
        method: Resampled(float(np.mean([task.mean() for task in tasks])), redrawn(tasks))
        for method, tasks in scores.items()
    }
