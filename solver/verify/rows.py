"""Shares as rows: where the boundaries of a divided head fall in whole query blocks.

The first r query blocks of a causal head with a budget of b blocks have sum over i < r of
min(b, i + 1) tiles. A decode step has one tile for every (sequence, key block) pair instead.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise

from solver.verify.fields import Json


@dataclass(frozen=True)
class Rows:
    """A head's `count` rows of work, the i-th with min(`budget`, i + 1) tiles."""

    budget: int
    count: int

    def tiles(self, rows: int) -> int:
        """Tiles of the first `rows` rows."""
        ramp = min(self.budget, rows)
        return ramp * (ramp + 1) // 2 + (rows - ramp) * ramp

    def share(self, rows: int) -> float:
        """The part of all tiles that the first `rows` rows have."""
        return self.tiles(rows) / self.tiles(self.count)

    def nearest(self, share: float) -> int:
        """The row before which the first `share` of tiles lies, to the nearest; up on a tie."""
        wanted = share * self.tiles(self.count)
        above, last = 0, self.count
        while above < last:
            middle = (above + last) // 2
            if self.tiles(middle) < wanted:
                above = middle + 1
            else:
                last = middle
        below_is_nearer = above > 0 and wanted - self.tiles(above - 1) < self.tiles(above) - wanted
        return above - 1 if below_is_nearer else above

    def edges(self, shares: Iterable[float]) -> list[int]:
        """The boundaries of consecutive ranges with these shares, from 0 to all rows."""
        sums = list(accumulate(shares))
        return [0, *(self.nearest(share) for share in sums[:-1]), self.count]

    def realised(self, shares: Iterable[float]) -> list[float]:
        """The shares that the ranges have once their boundaries are whole rows."""
        return [self.share(end) - self.share(start) for start, end in pairwise(self.edges(shares))]


def rows_of(budget_tokens: int, step: Json) -> Rows:
    """The rows of a head with this budget in a workload."""
    size = step["block_tokens"]
    context_blocks = -(-step["context_tokens"] // size)
    budget_blocks = min(-(-budget_tokens // size), context_blocks)
    if step["phase"] == "decode":
        return Rows(1, step["batch_size"] * budget_blocks)
    return Rows(budget_blocks, context_blocks)
