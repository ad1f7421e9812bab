"""Batches of query blocks that one CPU thread computes in one go: lists of one kind, one head's."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from executor.kernels.layout import ALL_PIECES, Layout

GATHERED_BYTES = 2**20
"""K, or V, of one batch: they stay in cache, and calling costs little beside the work."""
STRIP_TOKENS = 768
"""Queries of one batch with every block: from so many on PyTorch's kernel takes 256 at a time."""


@dataclass(frozen=True)
class Span:
    """Query blocks [first, first + blocks) of a head, whose lists are of one kind.

    `kind` is their length, or ALL_PIECES; `start` is where the first one's indices are. `missing`
    own pieces lie behind the sequence's end. The tokens from `first_token` of the sequence on are
    new: `new_tokens` of them, from `stored` on in q.
    """

    head: int
    group: int
    sequence: int
    total_tokens: int
    kind: int
    start: int
    first: int
    blocks: int
    missing: int
    first_token: int
    new_tokens: int
    stored: int

    def tiles(self, per_block: int) -> int:
        """Pieces of all its lists, at most."""
        dense = (self.first + self.blocks) * per_block
        return self.blocks * (dense if self.kind == ALL_PIECES else self.kind)


def spans(layout: Layout, head_dim: int) -> Iterator[Span]:
    """The layout's query blocks in batches that one thread computes in one go."""
    every_piece = (layout.start == ALL_PIECES) & (layout.length > 0)
    kinds = layout.length.masked_fill(every_piece, ALL_PIECES).tolist()
    starts = layout.start.tolist()
    block, begin = layout.block_tokens, 0
    for blocks, entry in zip(layout.heads, layout.entries.tolist(), strict=True):
        head, group, sequence, origin, cached, total = entry
        end = begin + blocks.last - blocks.first
        behind = blocks.last * layout.per_block - layout.grid(sequence).pieces
        # A list whose own pieces are not all there is a batch of its own.
        numbered = [
            (number, kinds[number], max(behind, 0) if number == end - 1 else 0)
            for number in range(begin, end)
        ]
        for (kind, missing), alike in groupby(numbered, itemgetter(1, 2)):
            lists = [number for number, *_ in alike]
            at_once = _blocks_at_once(kind, layout.piece_tokens, head_dim, block)
            for part in range(lists[0], lists[-1] + 1, at_once):
                count = min(at_once, lists[-1] + 1 - part)
                first = blocks.first + part - begin
                token = max(first * block, cached)
                new = min((first + count) * block, total) - token
                if new > 0:
                    yield Span(
                        head, group, sequence, total, kind, starts[part],
                        first, count, missing, token, new, origin + token,
                    )  # fmt: skip
        begin = end


def _blocks_at_once(kind: int, piece_tokens: int, head_dim: int, block_tokens: int) -> int:
    if kind <= 0:
        return -(-STRIP_TOKENS // block_tokens)
    return max(1, GATHERED_BYTES // (4 * kind * piece_tokens * head_dim))
