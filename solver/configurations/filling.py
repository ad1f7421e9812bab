"""What the fillings of a device share: the dynamic programs that price configurations."""

from typing import Protocol

import numpy as np

from solver.placement.exact import Deadline
from solver.problem import Floats, Ints


class OutOfTimeError(Exception):
    """The deadline came, or the search was cancelled, in the middle of a table."""


class Filling(Protocol):
    """Every capacity's most valuable filling of one device."""

    @property
    def best(self) -> Floats:
        """No set of items done within a capacity is worth more, [capacities]."""

    def columns(self, capacities: Ints) -> Floats:
        """The shares of items that fill these capacities best, [capacities, items]."""


def check(deadline: Deadline) -> None:
    if deadline.left_s <= 0:
        raise OutOfTimeError


def after_launch(table: Floats, launch: int, capacities: int) -> Floats:
    """Best values by whole capacity, from those by what the launch leaves, [capacities]."""
    best = np.zeros(capacities)
    best[launch:] = table[: max(capacities - launch, 0)]
    return best


def left_by_launch(capacities: Ints, launch: int) -> Ints:
    """What a launch leaves of capacities; nothing where it does not even fit."""
    return np.asarray(np.maximum(capacities - launch, 0), dtype=np.int64)
