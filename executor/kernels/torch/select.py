"""The lists of a layout filled through torch, one entry after another."""

import torch

from executor.kernels.batch import Cache
from executor.kernels.layout import Layout, list_range
from executor.kernels.means import key_blocks
from executor.kernels.patterns import (
    Pooled,
    Sampled,
    SinkLocal,
    Strided,
    VerticalSlash,
    rule,
    rule_blocks,
)
from executor.kernels.sampled import sampled_scores, stored_lists
from executor.kernels.torch.means import key_means, query_means
from executor.kernels.vertical_slash import line_masses


def fill_lists(q: torch.Tensor, cache: Cache, layout: Layout, indices: torch.Tensor) -> None:
    blocks = keys = None
    for entry, rows in enumerate(layout.heads):
        lists = slice(*list_range(layout, entry, entry + 1))
        stored = layout.start[lists] >= 0
        row, length = layout.query_block[lists][stored], layout.length[lists][stored]
        if not len(row):
            continue
        if isinstance(rows.pattern, Pooled):
            if blocks is None or keys is None:
                blocks = key_blocks(layout)
                keys = key_means(cache, blocks, layout.block_tokens)
            queries = query_means(q, layout, entry, entry + 1)[stored]
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
            found.append(best_blocks(scores, layout.query_block[numbers], budget).flatten())
    return torch.cat(found)


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
