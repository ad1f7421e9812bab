"""The lists of a layout filled by Triton: a run of entries of one pattern takes a few launches."""

import torch

from executor.kernels.batch import Cache
from executor.kernels.layout import Layout, list_range
from executor.kernels.means import KeyPieces, key_pieces
from executor.kernels.patterns import Pooled, Sampled, VerticalSlash, runs
from executor.kernels.sampled import most_pieces, query_rows, stored_lists, windows
from executor.kernels.scores import SCORE_BYTES
from executor.kernels.triton.lines import line_masses
from executor.kernels.triton.means import key_means, query_means
from executor.kernels.triton.rule_lists import rule_lists
from executor.kernels.triton.scores import piece_sums
from executor.kernels.triton.top_pieces import line_lists, pooled_lists, sampled_lists
from executor.kernels.vertical_slash import entries_at_once, scored_size

BYTES_PER_SUM = 4
"""What stays alive for one sampled row and piece."""


def fill_lists(q: torch.Tensor, cache: Cache, layout: Layout, indices: torch.Tensor) -> None:
    """Fill indices int32 [stored] with the lists of `layout`, q [heads, new tokens, head_dim]."""
    pieces: KeyPieces | None = None
    keys = torch.empty(0)
    for pattern, first, last in runs([blocks.pattern for blocks in layout.heads]):
        if not any(layout.stores(blocks) for blocks in layout.heads[first:last]):
            continue
        if isinstance(pattern, Pooled):
            if pieces is None:
                pieces = key_pieces(layout)
                keys = key_means(cache, pieces, layout.piece_tokens)
            pooled_lists(
                query_means(q, layout, first, last),
                keys,
                pieces.start,
                layout,
                list_range(layout, first, last)[0],
                most_pieces(layout, first, last),
                indices,
            )
        elif isinstance(pattern, VerticalSlash):
            _fill_lines(q, cache, layout, pattern, first, last, indices)
        elif isinstance(pattern, Sampled):
            _fill_samples(q, cache, layout, pattern, first, last, indices)
        else:
            lists = list_range(layout, first, last)
            rule_lists(pattern, layout, *lists, indices)


def _fill_lines(
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    pattern: VerticalSlash,
    first: int,
    last: int,
    indices: torch.Tensor,
) -> None:
    # A long prompt's entries that choose nothing would widen the others' rows of scores.
    for chooses, low, high in runs([layout.stores(blocks) for blocks in layout.heads[first:last]]):
        if not chooses:
            continue
        step = entries_at_once(*scored_size(layout, first + low, first + high, pattern))
        for begin in range(first + low, first + high, step):
            end = min(first + high, begin + step)
            lines = line_masses(q, cache, layout, begin, end, pattern)
            lists = list_range(layout, begin, end)
            line_lists(*lines, begin, layout, *lists, indices)


def _fill_samples(
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    pattern: Sampled,
    first: int,
    last: int,
    indices: torch.Tensor,
) -> None:
    numbers = stored_lists(layout, first, last)
    rows = query_rows(layout, numbers, pattern.rows)
    held = BYTES_PER_SUM * pattern.rows * most_pieces(layout, first, last)
    for entries, lists, pieces in windows(layout, first, last, max(1, SCORE_BYTES // held)):
        part = rows.part(entries, slice(lists.start * pattern.rows, lists.stop * pattern.rows))
        sums = piece_sums(q, cache, part, layout.piece_tokens, pieces)
        sampled_lists(sums, part.position, numbers[entries, lists], layout, pieces, indices)
