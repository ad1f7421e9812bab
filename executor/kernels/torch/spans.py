"""Batches of query blocks that one CPU thread computes in one go: lists of one kind, one head's."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from executor.kernels.layout import ALL_BLOCKS, Layout

GATHERED_BYTES = 2**21
"""K and V of one batch: they stay in cache, and calling costs little beside the work."""
STRIP_TOKENS = 768
"""Queries of one batch with every block: from so many on PyTorch's kernel takes 256 at a time."""


@dataclass(frozen=True)
class Span:
    """Query blocks [first, first + rows) of a head, whose lists are of one kind.

    `kind` is their length, or ALL_BLOCKS; `start` is where the first one's indices are. The tokens
    from `first_token` of the sequence on are new: `new_tokens` of them, from `stored` on in q.
    """

    head: int
    group: int
    sequence: int
    total_tokens: int
    kind: int
    start: int
    first: int
    rows: int
    first_token: int
    new_tokens: int
    stored: int

    @property
    def tiles(self) -> int:
        return self.rows * (self.first + self.rows if self.kind == ALL_BLOCKS else self.kind)


def spans(layout: Layout, head_dim: int) -> Iterator[Span]:
    """The layout's query blocks in batches that one thread computes in one go."""
    every_block = (layout.start == ALL_BLOCKS) & (layout.length > 0)
    kinds = layout.length.masked_fill(every_block, ALL_BLOCKS).tolist()
    starts = layout.start.tolist()
    block, begin = layout.block_tokens, 0
    for rows, entry in zip(layout.heads, layout.entries.tolist(), strict=True):
        head, group, sequence, origin, cached, total = entry
        end = begin + rows.last - rows.first
        for kind, alike in groupby(range(begin, end), kinds.__getitem__):
            lists = list(alike)
            at_once = _rows_at_once(kind, block, head_dim)
            for part in range(lists[0], lists[-1] + 1, at_once):
                count = min(at_once, lists[-1] + 1 - part)
                first = rows.first + part - begin
                token = max(first * block, cached)
                new = min((first + count) * block, total) - token
                if new > 0:
                    yield Span(
                        head, group, sequence, total, kind, starts[part],
                        first, count, token, new, origin + token,
                    )  # fmt: skip
        begin = end


def _rows_at_once(kind: int, block_tokens: int, head_dim: int) -> int:
    if kind <= 0:
        return -(-STRIP_TOKENS // block_tokens)
    return max(1, GATHERED_BYTES // (2 * 4 * kind * block_tokens * head_dim))
