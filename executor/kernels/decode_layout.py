"""Decode's lists as far as they follow from budgets alone.

A decoding sequence grows by a token a step while everything here stays as it is: lengths live on
the device (`context_tokens`), so that a captured CUDA graph can be replayed for the next token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from executor.kernels.layout import ALL_BLOCKS, sent
from executor.kernels.patterns import POOLED, Pattern

PADDING = -1
"""`DecodeLayout.heads` where an entry has fewer query heads than the widest one."""


@dataclass(frozen=True)
class DecodeHeads:
    """One list of key blocks of one sequence and KV group, and the query heads that read it.

    `heads` are scored jointly and packed into one tile (GQA). `part` is the range of the list that
    this device computes, as fractions: (0, 1) all of it. `token` is the new token's index in q.
    """

    sequence: int
    token: int
    group: int
    heads: tuple[int, ...]
    budget_blocks: int
    part: tuple[float, float] = (0.0, 1.0)
    pattern: Pattern = POOLED


@dataclass(frozen=True, eq=False)
class DecodeLayout:
    """The lists of all entries, with room for sequences of up to `most_blocks` key blocks.

    Entry e's list is written to `indices[start[e]:]` (int32 [stored]), ascending and at most
    `budget_blocks` long, except where the budget covers `most_blocks`: there it is every block,
    needs no indices and `start[e]` is ALL_BLOCKS.

    entries int32 [entries, 3]: sequence, token, group; heads int32 [entries, widest], padded with
    PADDING; start, budget int32 [entries]; part float64 [entries, 2].
    """

    lists: tuple[DecodeHeads, ...]
    most_blocks: int
    block_tokens: int
    entries: torch.Tensor
    heads: torch.Tensor
    start: torch.Tensor
    budget: torch.Tensor
    part: torch.Tensor
    stored: int


@dataclass(frozen=True, eq=False)
class DecodeLists:
    """What selection decides at every step: which blocks this device computes for every entry.

    Entry e's blocks are `first[e] .. first[e] + count[e]` of its list: block numbers themselves
    where the layout's start is ALL_BLOCKS, else places from `start[e]` on in `indices`. first and
    count int32 [entries], contiguous; a count may be 0.
    """

    first: torch.Tensor
    count: torch.Tensor
    indices: torch.Tensor


def lay_out_decode(
    lists: Sequence[DecodeHeads],
    most_blocks: int,
    block_tokens: int,
    device: torch.device | str = "cpu",
) -> DecodeLayout:
    """The layout of `lists`; queues its copies to the device and does not wait."""
    lists, device = tuple(lists), torch.device(device)
    widest = max((len(entry.heads) for entry in lists), default=1)
    budget = torch.tensor([min(e.budget_blocks, most_blocks) for e in lists], dtype=torch.int32)
    kept = torch.where(budget == most_blocks, 0, budget)
    start = torch.where(kept == 0, ALL_BLOCKS, kept.cumsum(0) - kept).int()
    entries = [(entry.sequence, entry.token, entry.group) for entry in lists]
    heads = [(*entry.heads, *[PADDING] * (widest - len(entry.heads))) for entry in lists]
    part = torch.tensor([entry.part for entry in lists], dtype=torch.float64)
    return DecodeLayout(
        lists,
        most_blocks,
        block_tokens,
        entries=sent(torch.tensor(entries, dtype=torch.int32).view(-1, 3), device),
        heads=sent(torch.tensor(heads, dtype=torch.int32).view(-1, widest), device),
        start=sent(start, device),
        budget=sent(budget, device),
        part=sent(part.view(-1, 2), device),
        stored=int(kept.sum()),
    )
