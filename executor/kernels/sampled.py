"""How much attention a few rows of every query block give to each piece of keys, exactly.

SampleAttention (arXiv 2406.15486, section 4) scores strided rows against all keys. A block's last
row is always among them: it ends what the block asks for, and at a prompt's end it is the question.
"""

from collections.abc import Iterator, Sequence

import torch

from executor.kernels.batch import Cache
from executor.kernels.chip import GRID_AXIS
from executor.kernels.layout import ALL_PIECES, HeadBlocks, Layout
from executor.kernels.patterns import Sampled
from executor.kernels.scores import SCORE_BYTES, PieceLse, QueryRows, row_masses

BYTES_PER_PIECE = 16
"""What stays alive for one row and piece: log-sum-exp, mass, and a copy of each in between."""


def lists_at_once(pattern: Sampled, pieces: int) -> int:
    """How many query blocks' scores against `pieces` fit into SCORE_BYTES."""
    return max(1, SCORE_BYTES // max(1, BYTES_PER_PIECE * pattern.rows * pieces))


def stored_lists(layout: Layout, first: int, last: int) -> torch.Tensor:
    """Numbers of the stored lists of entries [first, last), int64 [entries, lists], -1 for none."""
    most = max(blocks.last - blocks.first for blocks in layout.heads[first:last])
    entry = torch.arange(first, last, dtype=torch.int32, device=layout.entry.device)
    start = torch.searchsorted(layout.entry, entry)[:, None]
    stop = torch.searchsorted(layout.entry, entry, right=True)[:, None]
    number = start + torch.arange(most, device=entry.device)
    stored = layout.start[number.clamp(max=layout.lists - 1)] != ALL_PIECES
    return torch.where((number < stop) & stored, number, -1)


def windows(
    layout: Layout, first: int, last: int, at_once: int
) -> Iterator[tuple[slice, slice, int]]:
    """Parts of `stored_lists(layout, first, last)`, none of more than `at_once` lists.

    A part is its entries, GRID_AXIS at most, its lists and how many pieces they choose from.
    """
    heads = layout.heads[first:last]
    most = max(blocks.last - blocks.first for blocks in heads)
    step = max(1, min(GRID_AXIS, at_once // max(1, most)))
    window = max(1, min(most, at_once))
    for begin in range(0, len(heads), step):
        entries = slice(begin, min(begin + step, len(heads)))
        for low in range(0, most, window):
            high = min(low + window, most)
            pieces = _causal(layout, heads[entries], high)
            if pieces:
                yield entries, slice(low, high), pieces


def _causal(layout: Layout, heads: Sequence[HeadBlocks], lists: int) -> int:
    """The most pieces that one of the first `lists` of one of `heads` chooses from, 0 if none does.

    Heads that attend to everything choose from nothing, however long their prompt.
    """
    causal = (
        min(
            min(blocks.last, blocks.first + lists) * layout.per_block,
            layout.grid(blocks.sequence).pieces,
        )
        for blocks in heads
        if layout.stores(blocks)
    )
    return max(causal, default=0)


def most_pieces(layout: Layout, first: int, last: int) -> int:
    """The most pieces that a list of entries [first, last) chooses from."""
    heads = layout.heads[first:last]
    return _causal(layout, heads, max(blocks.last for blocks in heads))


def sampled_scores(
    piece_lse: PieceLse,
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    numbers: torch.Tensor,
    pieces: int,
    pattern: Sampled,
) -> torch.Tensor:
    """Attention mass of the first `pieces`, fp32 [entries, lists, pieces].

    numbers int64 [entries, lists]: lists of `layout`, in each row those of one entry; -1 is none
    and scores 0. Masses are summed over the list's sampled rows; a row whose scores overflow counts
    for nothing.
    """
    rows = query_rows(layout, numbers, pattern.rows)
    lse = piece_lse(q, cache, rows, layout.piece_tokens, pieces)
    return row_masses(lse).view(*numbers.shape, pattern.rows, pieces).sum(2)


def query_rows(layout: Layout, numbers: torch.Tensor, rows: int) -> QueryRows:
    """The sampled rows of the lists `numbers` [entries, lists], `rows` places for each.

    Of a query block's c new rows they are number (i + 1) c // rows - 1 for i < rows: the last one
    and others evenly before it, position -1 in the places that c < rows leaves.
    """
    table = layout.entries[layout.entry[numbers.amax(1)]]
    cached, total = table[:, 4], table[:, 5]
    block, size = layout.query_block[numbers.clamp(min=0)], layout.block_tokens
    begin = torch.maximum(cached[:, None], block * size)
    new = torch.minimum(total[:, None], (block + 1) * size) - begin
    edge = new[..., None] * torch.arange(rows + 1, device=numbers.device) // rows
    sampled = (edge.diff() > 0) & (numbers[..., None] >= 0)
    position = torch.where(sampled, begin[..., None] + edge[..., 1:] - 1, -1).flatten(1).int()
    return QueryRows.at(table, position)
