"""Which key blocks each query block of each head attends to: fills the lists of a Layout.

Every size follows from the layout, so that nothing waits for the device. On a GPU a run of entries
that share a pattern takes a few launches; elsewhere entries go one by one through torch.
"""

import torch

from executor.kernels.batch import Cache
from executor.kernels.layout import HeadRows, Layout
from executor.kernels.means import KeyBlocks, key_blocks, key_means, list_range, query_means
from executor.kernels.patterns import (
    Pooled,
    Sampled,
    SinkLocal,
    Strided,
    VerticalSlash,
    rule,
    rule_blocks,
    runs,
)
from executor.kernels.sampled import sampled_scores, stored_lists
from executor.kernels.vertical_slash import entries_at_once, line_masses, scored_size


def select(
    q: torch.Tensor, cache: Cache, layout: Layout, *, use_triton: bool | None = None
) -> torch.Tensor:
    """The stored lists of `layout`, int32 [layout.stored], for q [heads, new tokens, head_dim].

    By itself Triton is used where q is on a GPU. There head_dim and block_tokens are powers of two.
    """
    indices = torch.empty(layout.stored, dtype=torch.int32, device=q.device)
    fill = _fill_by_triton if (q.is_cuda if use_triton is None else use_triton) else _fill_by_torch
    if layout.stored:
        fill(q, cache, layout, indices)
    return indices


def best_blocks(scores: torch.Tensor, row: torch.Tensor, kept: int) -> torch.Tensor:
    """The `kept` best of blocks 0..row of every row, int32 [rows, kept], ascending.

    scores fp32 [rows, blocks], overwritten; row [rows], none below kept - 1. The own block and
    block 0 go before all others, the own one first; NaN counts as 0.
    """
    block, own = torch.arange(scores.shape[1], device=scores.device), row[:, None]
    # Finite and below the sink's score, so that no score, however large, competes with the blocks
    # that are always in, nor with -inf, which marks the future.
    limit = torch.finfo(torch.float32).max / 2
    scores.nan_to_num_(0.0).clamp_(-limit, limit)
    scores[:, 0] = torch.finfo(torch.float32).max
    scores.masked_fill_(block == own, torch.inf).masked_fill_(block > own, -torch.inf)
    return scores.topk(kept, dim=1, sorted=False).indices.sort(dim=1).values.int()


def is_stored(rows: HeadRows) -> bool:
    """Whether any of these rows may have a list that does not hold every block."""
    return isinstance(rows.pattern, Strided) or rows.budget_blocks < rows.last


def _fill_by_torch(q: torch.Tensor, cache: Cache, layout: Layout, indices: torch.Tensor) -> None:
    blocks = keys = None
    for entry, rows in enumerate(layout.heads):
        lists = slice(*list_range(layout, entry, entry + 1))
        stored = layout.start[lists] >= 0
        row, length = layout.row[lists][stored], layout.length[lists][stored]
        if not len(row):
            continue
        if isinstance(rows.pattern, Pooled):
            if blocks is None or keys is None:
                blocks = key_blocks(layout)
                keys = key_means(cache, blocks, layout.block_tokens, use_triton=False)
            queries = query_means(q, layout, entry, entry + 1, use_triton=False)[stored]
            first = int(blocks.start[rows.sequence])
            scores = queries @ keys[rows.group, first : first + rows.last].T
            found = best_blocks(scores, row, rows.budget_blocks).flatten()
        elif isinstance(rows.pattern, VerticalSlash):
            column, diagonal = line_masses(
                q, cache, layout, entry, entry + 1, rows.pattern, use_triton=False
            )
            found = best_blocks(line_scores(column[0], diagonal[0], row), row, rows.budget_blocks)
            found = found.flatten()
        elif isinstance(rows.pattern, Sampled):
            found = _by_samples(q, cache, layout, entry, rows.pattern)
        else:
            found = _by_rule(rows.pattern, row, length)
        begin = int(layout.start[lists][stored][0])
        indices[begin : begin + len(found)] = found


def _by_samples(
    q: torch.Tensor, cache: Cache, layout: Layout, entry: int, pattern: Sampled
) -> torch.Tensor:
    """The stored lists of `entry`, one after another."""
    found = []
    for run, blocks in stored_lists(layout, entry, entry + 1, pattern, use_triton=False):
        numbers = run[run >= 0]
        if len(numbers):
            scores = sampled_scores(
                q, cache, layout, numbers[None], blocks, pattern, use_triton=False
            )[0]
            budget = layout.heads[entry].budget_blocks
            found.append(best_blocks(scores, layout.row[numbers], budget).flatten())
    return torch.cat(found)


def line_scores(column: torch.Tensor, diagonal: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Block b of row r scores column[b] + diagonal[r - b], fp32 [rows, blocks]; 0 in the future."""
    distance = row[:, None] - torch.arange(len(column), device=row.device)
    scores = column + diagonal[distance.clamp(min=0)]
    return scores.masked_fill_(distance < 0, 0.0)


def _by_rule(pattern: SinkLocal | Strided, row: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """The lists of `row` by rule, one after another."""
    place = torch.arange(int(length.max()), device=row.device)
    found = rule_blocks(rule(pattern), place, row[:, None], length[:, None])
    return found[place < length[:, None]].int()


def _fill_by_triton(q: torch.Tensor, cache: Cache, layout: Layout, indices: torch.Tensor) -> None:
    from executor.kernels import rule_lists, top_blocks

    blocks: KeyBlocks | None = None
    keys: torch.Tensor | None = None
    for pattern, first, last in runs([rows.pattern for rows in layout.heads]):
        run = layout.heads[first:last]
        if not any(is_stored(rows) for rows in run):
            continue
        if isinstance(pattern, Pooled):
            if blocks is None or keys is None:
                blocks = key_blocks(layout)
                keys = key_means(cache, blocks, layout.block_tokens, use_triton=True)
            top_blocks.pooled_lists(
                query_means(q, layout, first, last, use_triton=True),
                keys,
                blocks.start,
                layout,
                list_range(layout, first, last)[0],
                max(rows.last for rows in run if is_stored(rows)),
                indices,
            )
        elif isinstance(pattern, VerticalSlash):
            _fill_lines(q, cache, layout, pattern, first, last, indices)
        elif isinstance(pattern, Sampled):
            for numbers, count in stored_lists(layout, first, last, pattern, use_triton=True):
                scores = sampled_scores(q, cache, layout, numbers, count, pattern, use_triton=True)
                top_blocks.score_lists(scores, numbers, layout, indices)
        else:
            lists = list_range(layout, first, last)
            rule_lists.rule_lists(rule(pattern), layout, *lists, indices)


def _fill_lines(
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    pattern: VerticalSlash,
    first: int,
    last: int,
    indices: torch.Tensor,
) -> None:
    from executor.kernels import top_blocks

    step = entries_at_once(*scored_size(layout, first, last, pattern))
    for begin in range(first, last, step):
        end = min(last, begin + step)
        lines = line_masses(q, cache, layout, begin, end, pattern, use_triton=True)
        lists = list_range(layout, begin, end)
        top_blocks.line_lists(*lines, begin, layout, *lists, indices)
