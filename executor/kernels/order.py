"""Longest first: the order in which one device's tiles start (Graham's LPT rule, 1969).

A GPU hands the blocks of a plain one-dimensional grid to whichever multiprocessor is free, so the
order of the grid is the whole schedule: no queue, no persistent loop.
"""

import torch

from executor.kernels.select import BlockLists


def longest_first(lists: BlockLists) -> torch.Tensor:
    """Numbers of the non-empty lists, longest first, int32 [rows computed].

    Lists of equal length stay in head order, so that neighbours share their K/V in cache.
    """
    computed = sum(rows.last - rows.first for rows in lists.heads)
    longest = lists.indptr.diff().argsort(descending=True, stable=True)
    return longest[:computed].int()
