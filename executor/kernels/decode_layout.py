"""Decode's lists as far as they follow from budgets alone.

A decoding sequence grows by a token a step while everything here stays as it is: lengths live on
the device (`context_tokens`), so that a captured CUDA graph can be replayed for the next token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, repeat
from typing import Any, TypeVar

import torch

from executor.kernels.layout import ALL_PIECES, send
from executor.kernels.patterns import POOLED, Pattern

Made = TypeVar("Made")
PADDING = -1
"""`DecodeLayout.heads` where an entry has fewer query heads than the widest one."""


@dataclass(frozen=True)
class DecodeHeads:
    """One list of pieces of keys of one sequence and KV group, and the query heads that read it.

    `heads` are scored jointly and packed into one tile (GQA). `part` is the range of the list that
    this device computes, as fractions: (0, 1) all of it. `token` is the new token's index in q.
    """

    sequence: int
    token: int
    group: int
    heads: tuple[int, ...]
    budget_pieces: int
    part: tuple[float, float] = (0.0, 1.0)
    pattern: Pattern = POOLED


@dataclass(frozen=True, eq=False)
class DecodeLayout:
    """The lists of all entries, with room for sequences of up to `most_pieces` pieces of keys.

    Entry e's list is written to `indices[start[e]:]` ([stored]), ascending and at most
    `budget_pieces` long, except where the budget covers `most_pieces`: there it is every piece,
    needs no indices and `start[e]` is ALL_PIECES.

    entries int32 [entries, 3]: sequence, token, group; heads int32 [entries, widest], padded with
    PADDING; start, budget int32 [entries]; part float64 [entries, 2].
    """

    lists: tuple[DecodeHeads, ...]
    most_pieces: int
    piece_tokens: int
    entries: torch.Tensor
    heads: torch.Tensor
    start: torch.Tensor
    budget: torch.Tensor
    part: torch.Tensor
    stored: int

    @cached_property
    def _derived(self) -> dict[object, Any]:
        return {}

    def derive(self, make: Callable[..., Made], *of: object) -> Made:
        """make(layout, *of), or what it made last, of the same `of`."""
        found = self._derived.get(make)
        if found is None or found[0] != of:
            found = self._derived[make] = of, make(self, *of)
        made: Made = found[1]
        return made

    @cached_property
    def starts(self) -> list[int]:
        """`start` as numbers, for whoever computes on the CPU."""
        found: list[int] = self.start.tolist()
        return found

    @cached_property
    def budgets(self) -> list[int]:
        """`budget` as numbers."""
        found: list[int] = self.budget.tolist()
        return found


@dataclass(frozen=True, eq=False)
class DecodeLists:
    """What selection decides at every step: which pieces this device computes for every entry.

    Entry e's pieces are `first[e] .. first[e] + count[e]` of its list: piece numbers themselves
    where the layout's start is ALL_PIECES, else places from `start[e]` on in `indices`, int32
    from Triton and int64 from torch. first and count int32 [entries], contiguous; a count may be 0.
    """

    first: torch.Tensor
    count: torch.Tensor
    indices: torch.Tensor


def lay_out_decode(
    lists: Sequence[DecodeHeads],
    most_pieces: int,
    piece_tokens: int,
    device: torch.device | str = "cpu",
) -> DecodeLayout:
    """The layout of `lists`; queues its copies to the device and does not wait."""
    lists, device = tuple(lists), torch.device(device)
    widest = max((len(entry.heads) for entry in lists), default=1)
    budget = [min(entry.budget_pieces, most_pieces) for entry in lists]
    kept = [0 if pieces == most_pieces else pieces for pieces in budget]
    before = list(accumulate(kept, initial=0))
    start = [place if pieces else ALL_PIECES for place, pieces in zip(before, kept, strict=False)]
    entries = [x for entry in lists for x in (entry.sequence, entry.token, entry.group)]
    heads = [x for e in lists for x in (*e.heads, *repeat(PADDING, widest - len(e.heads)))]
    part = [edge for entry in lists for edge in entry.part]

    def sent(numbers: list[int]) -> torch.Tensor:
        return send(torch.tensor(numbers, dtype=torch.int32), device)

    return DecodeLayout(
        lists,
        most_pieces,
        piece_tokens,
        entries=sent(entries).view(-1, 3),
        heads=sent(heads).view(-1, widest),
        start=sent(start),
        budget=sent(budget),
        part=send(torch.tensor(part, dtype=torch.float64), device).view(-1, 2),
        stored=before[-1],
    )
