"""Which pieces of keys a head's query block may choose from, and how many it takes.

Every pattern takes the query block's own pieces, so that only the last ones of a list need a mask.
All but `strided` ones take exactly their budget of pieces, the block's own at least, or all there
are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

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

    rows: int = 8


EVERY = 2**30
"""`Rule.sink_pieces` where the rule alone says how long a list is."""


@dataclass(frozen=True)
class Rule:
    """A list known without scores: pieces `offset + i * stride`, i < sink_pieces, then the nearest.

    The nearest are what the others leave of the list's length, at least `local_pieces` and the
    query block's own. `sink_local` and `strided` are the rules that are published. Raises
    ValueError for an offset that is no remainder by the stride.
    """

    sink_pieces: int
    local_pieces: int
    stride: int
    offset: int

    def __post_init__(self) -> None:
        if 0 < self.stride <= self.offset:
            raise ValueError(
                f"offset: {self.offset} must be less than the stride, {self.stride}: it is what a "
                "piece's number leaves when divided by it"
            )

    def within(self, per_block: int) -> tuple[int, int, int, int]:
        """Its numbers where a query block has `per_block` pieces of its own."""
        return self.sink_pieces, max(self.local_pieces, per_block), self.stride, self.offset

    @classmethod
    def sink_local(cls, sink_pieces: int = 1) -> "Rule":
        """The first `sink_pieces` and the nearest ones: StreamingLLM (arXiv 2309.17453), MoA
        (arXiv 2406.14909), DuoAttention (arXiv 2410.10819)."""
        return cls(sink_pieces, 1, 1, 0)

    @classmethod
    def strided(cls, local_blocks: int, stride: int, offset: int = 0) -> "Rule":
        """The last `local_blocks` and beyond them every `stride`-th, those b with
        b % stride == offset: S2-Attention (arXiv 2407.17678).

        The budget is the rule's own, and its blocks are square.
        """
        return cls(EVERY, local_blocks, stride, offset)


Pattern = Pooled | VerticalSlash | Sampled | Rule
POOLED = Pooled()
SAMPLED = Sampled()


def by_budget(pattern: Pattern) -> bool:
    """Whether a head's budget says how long its lists are, rather than the pattern itself."""
    return not isinstance(pattern, Rule) or pattern.sink_pieces < EVERY


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
    >>> lengths(Rule.strided(2, stride=3), 9, 0, 8, Grid(1, 8)).tolist()  # block 7: 7, 6 and 0, 3
    [1, 2, 3, 3, 3, 4, 4, 4]
    """
    causal = grid.causal(first, last)
    if not isinstance(pattern, Rule) or by_budget(pattern):
        return causal.clamp(max=max(budget_pieces, grid.per_block))
    assert grid.per_block == 1, "a strided pattern's query and key blocks are of one size"
    found: torch.Tensor = strided_length(
        causal, pattern.local_pieces, pattern.stride, pattern.offset
    )
    return found


def strided_length(causal: Any, local_pieces: Any, stride: Any, offset: Any) -> Any:
    """Pieces in a strided pattern's list of `causal` ones; of numbers, arrays and tensors alike.

    >>> [strided_length(causal, 2, stride=3, offset=0) for causal in (1, 2, 3, 5, 6)]
    [1, 2, 3, 3, 4]
    """
    beyond = (causal - local_pieces) * (causal > local_pieces)
    distant = (beyond - offset + stride - 1) // stride
    return causal - beyond + distant * (distant > 0)


def rule_pieces(
    rule: Rule, per_block: int, place: torch.Tensor, last: torch.Tensor, length: torch.Tensor
) -> torch.Tensor:
    """The piece at `place` of a list of `length` pieces that ends with piece `last`; broadcast.

    >>> last, length = torch.tensor(7), torch.tensor(4)
    >>> rule_pieces(Rule.sink_local(1), 1, torch.arange(4), last, length).tolist()
    [0, 5, 6, 7]
    >>> rule_pieces(Rule.strided(2, stride=3), 1, torch.arange(4), last, length).tolist()
    [0, 3, 6, 7]
    """
    sink_pieces, local_pieces, stride, offset = rule.within(per_block)
    near = torch.minimum((length - sink_pieces).clamp(min=local_pieces), last + 1)
    distant = place < length - near
    return torch.where(distant, offset + place * stride, last - (length - 1 - place))


Kind = TypeVar("Kind")


def runs(kinds: Sequence[Kind]) -> Iterator[tuple[Kind, int, int]]:
    """(kind, first, last) of every run of equal neighbours in `kinds`.

    >>> [(first, last) for _, first, last in runs([POOLED, POOLED, Rule.sink_local()])]
    [(0, 2), (2, 3)]
    """
    first = 0
    for kind, run in groupby(kinds):
        last = first + len(list(run))
        yield kind, first, last
        first = last
