"""Memory priced in seconds per byte: placements with fewer copies come out cheaper."""

from dataclasses import replace

import numpy as np

from solver.coupling.bytes import Footprint
from solver.problem import Floats, Ints, PlacementProblem

PRICE_STEP = 3.0


class Bracket:
    """Prices [types] that rise where devices are too full, then close in on the least enough.

    Between the last ones too low and the last ones enough by bisection, in powers.
    """

    def __init__(self, first: float, types: int) -> None:
        self.first = first
        self.price = np.zeros(types)
        self.too_low = self.price
        self.enough: Floats | None = None

    def after(self, full: Ints) -> Floats:
        """The next prices, when at the last ones the types `full` were too full, perhaps none."""
        if not len(full):
            self.enough = self.price
        else:
            self.too_low = self.price
        if self.enough is None:
            self.price = self.too_low.copy()
            self.price[full] = np.maximum(PRICE_STEP * self.price[full], self.first)
        else:
            least = np.maximum(self.too_low, self.enough / PRICE_STEP**2)
            self.price = np.sqrt(least * self.enough)
        return self.price


def priced(problem: PlacementProblem, footprint: Footprint, price: Floats) -> PlacementProblem:
    """The problem with `price` [types] seconds a byte on K/V and weights.

    A group is charged for what its hungriest head keeps, wherever it is; a part of a head for all
    of the head's weights. Makespans of the priced problem mean nothing outside the search.
    """
    per_head = footprint.projection_bytes * price
    per_group = footprint.kept_tokens.max(axis=-1) * footprint.token_bytes
    per_group = per_group + footprint.projection_bytes
    return replace(
        problem,
        head_s=problem.head_s + per_head,
        part_s=problem.part_s + per_head,
        group_s=problem.group_s + per_group[..., None] * price,
    )
