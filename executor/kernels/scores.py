"""What a few query rows give to every piece of keys, exactly: their scores' log-sum-exp there.

A softmax over all keys follows from it (Online normalizer calculation, arXiv 1805.02867), with a
number per piece instead of one per key.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from executor.kernels.batch import Cache

SCORE_BYTES = 256 * 2**20
"""Bound on the scores alive at once: what is scored goes through in runs that keep to it."""


@dataclass(frozen=True, eq=False)
class QueryRows:
    """Query rows that read the keys of one group and sequence together.

    group, sequence int32 [entries]; head, token (index in q) and position int32 [entries, rows]:
    a row sees keys 0..position of its sequence, none where it is -1.
    """

    group: torch.Tensor
    sequence: torch.Tensor
    head: torch.Tensor
    token: torch.Tensor
    position: torch.Tensor

    @classmethod
    def at(cls, entries: torch.Tensor, position: torch.Tensor) -> "QueryRows":
        """The rows at `position` of entries int32 [entries, 6], a `Layout`'s."""
        head, group, sequence, origin, _, _ = entries.unbind(1)
        token = (origin[:, None] + position).clamp(min=0)
        return cls(group, sequence, head[:, None].expand_as(position), token, position)

    def part(self, entries: slice, rows: slice) -> "QueryRows":
        """Some rows of some entries."""
        of_rows = (x[entries, rows] for x in (self.head, self.token, self.position))
        return QueryRows(self.group[entries], self.sequence[entries], *of_rows)


PieceLse = Callable[[torch.Tensor, Cache, QueryRows, int, int], torch.Tensor]
"""An implementation's `piece_lse`, handed to what works with either: q, cache, rows, piece_tokens,
pieces."""


def row_masses(lse: torch.Tensor) -> torch.Tensor:
    """Every row's softmax over all its keys, summed by piece, like lse [..., pieces].

    0 in a row that sees no key or whose scores overflow.
    """
    return lse.softmax(-1).nan_to_num_(0.0)
