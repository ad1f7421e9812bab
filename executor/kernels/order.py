"""Longest first: the order in which one device's tiles start (Graham's LPT rule, 1969).

A GPU hands the blocks of a plain one-dimensional grid to whichever multiprocessor is free, so the
order of the grid is the whole schedule: no queue, no persistent loop. Where a single list takes
longer than a program's fair part of everything, it is cut first (split KV: Flash-Decoding, 2023).
"""

import torch

LEAST_BLOCKS = 8
"""A list this long is not cut: reading the queries and merging would cost more than it saves."""
WHOLE = -1
"""Slot of a list that is not cut."""


def longest_first(length: torch.Tensor) -> torch.Tensor:
    """Numbers of the lists by their `length` [lists], longest first, int32 [lists].

    Lists of equal length stay in head order, so that neighbours share their K/V in cache.
    """
    return length.argsort(descending=True, stable=True).int()


def cut(length: torch.Tensor, programs: int) -> torch.Tensor:
    """Pieces of lists of `length` [lists], int32 [pieces, 4]: list, first block, blocks, slot.

    A list longer than its fair part of `programs` becomes near-equal pieces with consecutive slots,
    every other one WHOLE. List after list, a list's pieces in their order.

    >>> cut(torch.tensor([3, 20]), programs=3).tolist()
    [[0, 0, 3, -1], [1, 0, 6, 0], [1, 6, 7, 1], [1, 13, 7, 2]]
    """
    most = max(-(-int(length.sum()) // programs), LEAST_BLOCKS)
    pieces = (-(-length // most)).clamp(min=1)
    number = torch.arange(len(length)).repeat_interleave(pieces)
    nth = torch.arange(len(number)) - (pieces.cumsum(0) - pieces)[number]
    first = nth * length[number] // pieces[number]
    count = (nth + 1) * length[number] // pieces[number] - first
    divided = pieces[number] > 1
    slot = torch.where(divided, divided.cumsum(0) - 1, WHOLE)
    return torch.stack([number, first, count, slot], 1).int()
