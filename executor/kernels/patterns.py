"""Which key blocks a head's query block may choose from, and how many it takes.

Every pattern takes the query block's own key block, so that only a list's last block needs a mask.
All but `Strided` take exactly min(budget, row + 1) blocks in row `row`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch


@dataclass(frozen=True)
class Pooled:
    """The blocks whose pooled keys score best against the pooled queries, first and own always in.

    MoBA (arXiv 2502.13189, section 2.2), SpargeAttn (arXiv 2502.18137, section 3.2).
    """


@dataclass(frozen=True)
class VerticalSlash:
    """Block columns and block diagonals scored by the last queries, first and own always in.

    MInference (arXiv 2407.02490), pooled to blocks so that a budget in blocks is kept exactly. The
    queries that score are every `row_step`-th, not neighbours: seen from one query block alone, a
    block column and a block diagonal are the same block.
    """

    scored_rows: int = 64
    row_step: int = 8


@dataclass(frozen=True)
class Sampled:
    """The blocks that hold the most attention of `rows` rows of the query block, exactly scored.

    Strided rows up to the block's last one, as SampleAttention (arXiv 2406.15486, section 4) takes
    them: a mean query hides what a single row looks for, a mean key what a single token offers.
    """

    rows: int = 2


@dataclass(frozen=True)
class SinkLocal:
    """The first `sink_blocks` and the nearest blocks: StreamingLLM (arXiv 2309.17453), MoA
    (arXiv 2406.14909), DuoAttention (arXiv 2410.10819)."""

    sink_blocks: int = 1


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


def lengths(pattern: Pattern, budget_blocks: int, first: int, last: int) -> torch.Tensor:
    """Blocks in the lists of query blocks [first, last), int64 [last - first], on the CPU.

    >>> lengths(Pooled(), 3, 0, 5).tolist()
    [1, 2, 3, 3, 3]
    >>> lengths(Strided(local_blocks=2, stride=3), 9, 0, 8).tolist()  # row 7: 7, 6 and 0, 3
    [1, 2, 3, 3, 3, 4, 4, 4]
    """
    causal = torch.arange(first + 1, last + 1)
    if not isinstance(pattern, Strided):
        return causal.clamp(max=budget_blocks)
    beyond = (causal - pattern.local_blocks).clamp(min=0)
    strided = (beyond - pattern.offset + pattern.stride - 1).div(
        pattern.stride, rounding_mode="floor"
    )
    return causal.clamp(max=pattern.local_blocks) + strided.clamp(min=0)


@dataclass(frozen=True)
class Rule:
    """A list known without scores: blocks `offset + i * stride`, then the nearest ones.

    Of `length` blocks the nearest are max(local_blocks, length - sink_blocks).
    """

    sink_blocks: int
    local_blocks: int
    stride: int
    offset: int


def rule(pattern: SinkLocal | Strided) -> Rule:
    """The rule of `pattern`."""
    if isinstance(pattern, SinkLocal):
        return Rule(pattern.sink_blocks, 1, 1, 0)
    everything = 2**30
    return Rule(everything, pattern.local_blocks, pattern.stride, pattern.offset)


def rule_blocks(
    rule: Rule, place: torch.Tensor, row: torch.Tensor, length: torch.Tensor
) -> torch.Tensor:
    """The block at `place` of row `row`'s list of `length` blocks; all broadcast.

    >>> row, length = torch.tensor(7), torch.tensor(4)
    >>> rule_blocks(rule(SinkLocal(1)), torch.arange(4), row, length).tolist()
    [0, 5, 6, 7]
    >>> rule_blocks(rule(Strided(2, stride=3)), torch.arange(4), row, length).tolist()
    [0, 3, 6, 7]
    """
    near = torch.minimum((length - rule.sink_blocks).clamp(min=rule.local_blocks), row + 1)
    distant = place < length - near
    return torch.where(distant, rule.offset + place * rule.stride, row - (length - 1 - place))


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
