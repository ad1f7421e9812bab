"""Indices that are slices wherever they can be, which copies nothing."""

from collections.abc import Sequence

import torch

Index = slice | list[int]
"""What indexes some heads or groups."""
ZERO = torch.zeros(())
"""Stands where an operation asks for a tensor, of any shape, that it need not read."""


def index_of(numbers: Sequence[int]) -> Index:
    """An index of `numbers`: a slice where they follow one another.

    >>> index_of([3, 4, 5]), index_of([3, 5])
    (slice(3, 6, None), [3, 5])
    """
    found = range_of(numbers)
    return list(numbers) if found is None else slice(found.start, found.stop)


def range_of(numbers: Sequence[int]) -> range | None:
    """The range that `numbers`, at least one, are, if they follow one another."""
    found = range(numbers[0], numbers[-1] + 1)
    return found if list(found) == list(numbers) else None


def packed(q: torch.Tensor, heads: Index, token: int, lists: int) -> torch.Tensor:
    """The queries of a token's heads that read so many lists, as many heads each: of q [heads,
    tokens, head_dim] fp32 [lists, heads of each, head_dim]."""
    if q.shape[1] > 1 or heads != slice(0, q.shape[0]):
        q = q[heads, token]
    return q.float().reshape(lists, -1, q.shape[-1])
