"""Samples: what a device really did in a layer and how long it took, checked at the door."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiles.cost.work import FEATURES
from profiles.errors import HplbError

Floats = NDArray[np.float64]

SHORTEST_S, LONGEST_S = 1e-9, 1e9
MOST_UNITS = 1e24


class SampleError(HplbError):
    """A measurement, or an option of the fit, that no rates can be learned from."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One timed load: `work` `[FEATURES]` took `seconds`.

    `age` counts rounds since, 0 being the newest; `context_tokens` is the longest context in it.
    Raises SampleError for work or seconds that cannot have been measured.
    """

    work: Floats
    seconds: float
    age: float = 0.0
    context_tokens: int = 1

    def __post_init__(self) -> None:
        if not SHORTEST_S <= self.seconds <= LONGEST_S:
            raise SampleError(
                f"seconds: {self.seconds} must be a number from {SHORTEST_S:g} to {LONGEST_S:g}"
            )
        if not 0 <= self.age < np.inf:
            raise SampleError(f"age: {self.age} must be a number of rounds, 0 for the newest")
        if self.context_tokens < 1:
            raise SampleError(f"context_tokens: {self.context_tokens} must be at least 1")
        self._check_work()

    def _check_work(self) -> None:
        if np.shape(self.work) != (len(FEATURES),):
            raise SampleError(
                f"work: shape {np.shape(self.work)} must be ({len(FEATURES)},), one count for each "
                f"of {', '.join(FEATURES)}"
            )
        for name, units in zip(FEATURES, self.work, strict=True):
            if not 0 <= units <= MOST_UNITS:
                raise SampleError(f"work: {name} {units} must be from 0 to {MOST_UNITS:g}")
        if not np.any(self.work):
            raise SampleError("work: all counts are 0; a timed load did something")
