"""Shares as rows: where the boundaries of a divided head fall in whole query blocks.

A query block has m key pieces of its own. The first r query blocks of a causal head with a budget
of b pieces list sum over i < r of min(b, (i + 1) * m) pieces. A decode step has one for every
(sequence, key piece) pair instead.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise

from solver.verify.fields import Json


@dataclass(frozen=True)
class Rows:
    """A head's `count` rows of work, the i-th with min(`budget`, (i + 1) * `own`) pieces."""

    budget: int
    count: int
    own: int = 1

    def pieces(self, rows: int) -> int:
        """Pieces in the lists of the first `rows` rows."""
        short = min(self.budget // self.own, rows)
        return self.own * (short * (short + 1) // 2) + (rows - short) * self.budget

    def share(self, rows: int) -> float:
        """The part of all pieces that the first `rows` rows have."""
        return self.pieces(rows) / self.pieces(self.count)

    def nearest(self, share: float) -> int:
        """The row before which the first `share` of pieces lies, to the nearest; up on a tie."""
        wanted = share * self.pieces(self.count)
        above, last = 0, self.count
        while above < last:
            middle = (above + last) // 2
            if self.pieces(middle) < wanted:
                above = middle + 1
            else:
                last = middle
        if above == 0:
            return 0
        down, up = wanted - self.pieces(above - 1), self.pieces(above) - wanted
        return above - 1 if down < up else above

    def edges(self, shares: Iterable[float]) -> list[int]:
        """The boundaries of consecutive ranges with these shares, from 0 to all rows."""
        sums = list(accumulate(shares))
        return [0, *(self.nearest(share) for share in sums[:-1]), self.count]

    def realised(self, shares: Iterable[float]) -> list[float]:
        """The shares that the ranges have once their boundaries are whole rows."""
        return [self.share(end) - self.share(start) for start, end in pairwise(self.edges(shares))]


def rows_of(budget_tokens: int, step: Json) -> Rows:
    """The rows of a head with this budget in a workload."""
    block, piece = step["block_tokens"], step["piece_tokens"]
    pieces = whole_pieces(budget_tokens, step)
    if step["phase"] == "decode":
        return Rows(1, step["batch_size"] * pieces)
    return Rows(pieces, -(-step["context_tokens"] // block), block // piece)


def whole_pieces(budget_tokens: float, step: Json) -> int:
    """Key pieces of a budget: within the context, and in prefill a query block's own at least."""
    block, piece = step["block_tokens"], step["piece_tokens"]
    least = block // piece if step["phase"] == "prefill" else 1
    every = -(-step["context_tokens"] // piece)
    return int(min(max(math.ceil(budget_tokens / piece), least), every))
