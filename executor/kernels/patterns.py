"""Which pieces of keys a head's query block may choose from, and how many it takes.

Every pattern takes the query block's own pieces, so that only the last ones of a list need a mask.
All but `Strided` take exactly their budget of pieces, the block's own at least, or all there are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch


@dataclass(frozen=True)
class Pooled:
    """The pieces whose pooled keys score best against the pooled queries, first and own always in.

    MoBA (arXiv 2502.13189, section 2.2), SpargeAttn (arXiv 2502.18137, section 3.2).
    """


@dataclass(frozen=True)
class VerticalSlash:
    """Columns and diagonals of pieces scored by the last queries, first and own always in.

    MInference (arXiv 2407.02490), pooled to pieces so that a budget in pieces is kept exactly. The
    queries that score are every `row_step`-th, not neighbours: seen from one query block alone, a
    column and a diagonal are the same piece.
    """

    scored_rows: int = 64
    row_step: int = 8


@dataclass(frozen=True)
class Sampled:
    """The pieces that hold the most attention of `rows` rows of the query block, exactly scored.

    Strided rows up to the block's last one, as SampleAttention (arXiv 2406.15486, section 4) takes
    them: a mean query hides what a single row looks for, a mean key what a single token offers.
    """

    rows: int = 2


@dataclass(frozen=True)
class SinkLocal:
    """The first `sink_pieces` and the nearest ones: StreamingLLM (arXiv 2309.17453), MoA
    (arXiv 2406.14909), DuoAttention (arXiv 2410.10819)."""

    sink_pieces: int = 1


@dataclass(frozen=True)
class Strided:
    """The last `local_blocks` and beyond them every `stride`-th, those b with b % stride == offset.

    S2-Attention (arXiv 2407.17678). The budget is the pattern's own.
    """

    local_blocks: int
    stride: int
    offset: int = 0


Pattern = Pooled | VerticalSlash | Sampled | SinkLocal | Strided
POOLED = Pooled()


@dataclass(frozen=True)
class Grid:
    """How a sequence's keys fall into pieces: `per_block` of them make a query block.

    `pieces` are the sequence's, the last one perhaps partly filled.
    """

    per_block: int
    pieces: int

    @classmethod
    def of(cls, tokens: int, block_tokens: int, piece_tokens: int) -> "Grid":
        """The grid of a sequence of `tokens`."""
        return cls(block_tokens // piece_tokens, -(-tokens // piece_tokens))

    def causal(self, first: int, last: int) -> torch.Tensor:
        """Pieces up to each query block's own last one, int64 [last - first], on the CPU.

        >>> Grid(per_block=4, pieces=10).causal(0, 3).tolist()
        [4, 8, 10]
        """
        return (torch.arange(first + 1, last + 1) * self.per_block).clamp(max=self.pieces)


def lengths(
    pattern: Pattern, budget_pieces: int, first: int, last: int, grid: Grid
) -> torch.Tensor:
    """Pieces in the lists of query blocks [first, last), int64 [last - first], on the CPU.

    A query block's own pieces are always in its list, whatever its budget.

    >>> lengths(Pooled(), 3, 0, 5, Grid(1, 5)).tolist()
    [1, 2, 3, 3, 3]
    >>> lengths(Pooled(), 6, 0, 4, Grid(per_block=4, pieces=14)).tolist()
    [4, 6, 6, 6]
    >>> lengths(Strided(2, stride=3), 9, 0, 8, Grid(1, 8)).tolist()  # row 7: 7, 6 and 0, 3
    [1, 2, 3, 3, 3, 4, 4, 4]
    """
    causal = grid.causal(first, last)
    if not isinstance(pattern, Strided):
        return causal.clamp(max=max(budget_pieces, grid.per_block))
    assert grid.per_block == 1, "a strided pattern's query and key blocks are of one size"
    beyond = (causal - pattern.local_blocks).clamp(min=0)
    strided = (beyond - pattern.offset + pattern.stride - 1).div(
        pattern.stride, rounding_mode="floor"
    )
    return causal.clamp(max=pattern.local_blocks) + strided.clamp(min=0)


@dataclass(frozen=True)
class Rule:
    """A list known without scores: pieces `offset + i * stride`, then the nearest ones.

    Of `length` pieces the nearest are max(local_pieces, length - sink_pieces).
    """

    sink_pieces: int
    local_pieces: int
    stride: int
    offset: int


def rule(pattern: SinkLocal | Strided, per_block: int) -> Rule:
    """The rule of `pattern` where a query block has `per_block` pieces."""
    if isinstance(pattern, SinkLocal):
        return Rule(pattern.sink_pieces, per_block, 1, 0)
    everything = 2**30
    return Rule(everything, pattern.local_blocks, pattern.stride, pattern.offset)


def rule_pieces(
    rule: Rule, place: torch.Tensor, last: torch.Tensor, length: torch.Tensor
) -> torch.Tensor:
    """The piece at `place` of a list of `length` pieces that ends with piece `last`; broadcast.

    >>> last, length = torch.tensor(7), torch.tensor(4)
    >>> rule_pieces(rule(SinkLocal(1), 1), torch.arange(4), last, length).tolist()
    [0, 5, 6, 7]
    >>> rule_pieces(rule(Strided(2, stride=3), 1), torch.arange(4), last, length).tolist()
    [0, 3, 6, 7]
    """
    near = torch.minimum((length - rule.sink_pieces).clamp(min=rule.local_pieces), last + 1)
    distant = place < length - near
    return torch.where(distant, rule.offset + place * rule.stride, last - (length - 1 - place))


Kind = TypeVar("Kind")


def runs(kinds: Sequence[Kind]) -> Iterator[tuple[Kind, int, int]]:
    """(kind, first, last) of every run of equal neighbours in `kinds`.

    >>> [(first, last) for _, first, last in runs([POOLED, POOLED, SinkLocal()])]
    [(0, 2), (2, 3)]
    """
    first = 0
    for kind, run in groupby(kinds):
        last = first + len(list(run))
        yield kind, first, last
        first = last
