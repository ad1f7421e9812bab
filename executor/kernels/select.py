"""Which key blocks each query block of each head attends to.

A block stands for its tokens by their mean; a query block takes the key blocks whose mean scores
best against its own (MoBA, arXiv 2502.13189, section 2.2; SpargeAttn, arXiv 2502.18137, section
3.2), as many as its head's budget says, its own block and the first one (the attention sink)
always before all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class HeadRows:
    """Query blocks [first, last) of query head `head`, which reads KV head `group`."""

    head: int
    group: int
    budget_blocks: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class BlockLists:
    """For every head and query block the key blocks it attends to, in CSR form.

    List `entry * query_blocks + row` is `indices[indptr[list] : indptr[list + 1]]`, ascending; it
    has exactly min(budget_blocks, row + 1) key blocks and ends with `row` itself, so that only its
    last block needs a mask. Lists of rows outside a head's range are empty.

    indptr int32 [len(heads) * query_blocks + 1], indices int32 [tiles].
    """

    heads: tuple[HeadRows, ...]
    query_blocks: int
    block_tokens: int
    indptr: torch.Tensor
    indices: torch.Tensor


def select_blocks(
    q: torch.Tensor, k: torch.Tensor, heads: Sequence[HeadRows], block_tokens: int
) -> BlockLists:
    """Lists for q [heads, tokens, head_dim] against k [groups, tokens, head_dim].

    A head whose budget covers the context is not scored. Every size follows from the budgets, so
    that nothing waits for the device.
    """
    query_blocks = -(-q.shape[1] // block_tokens)
    keys: dict[int, torch.Tensor] = {}
    lengths, indices = [], []
    for rows in heads:
        length = torch.arange(1, query_blocks + 1, device=q.device).clamp(max=rows.budget_blocks)
        length[: rows.first] = 0
        length[rows.last :] = 0
        lengths.append(length)
        if rows.first == rows.last:
            continue
        if rows.budget_blocks >= query_blocks:
            indices.append(_causal_blocks(rows, q.device))
            continue
        if rows.group not in keys:
            keys[rows.group] = block_means(k[rows.group], block_tokens)
        computed = slice(rows.first * block_tokens, rows.last * block_tokens)
        queries = block_means(q[rows.head, computed], block_tokens)
        best = best_blocks(queries, keys[rows.group][: rows.last], rows)
        indices.append(_joined(best, rows))
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64, device=q.device), *lengths]).cumsum(0)
    joined = torch.cat(indices) if indices else indptr.new_empty(0)
    return BlockLists(tuple(heads), query_blocks, block_tokens, indptr.int(), joined.int())


def block_means(x: torch.Tensor, block_tokens: int) -> torch.Tensor:
    """Mean of every block of x [tokens, head_dim], [blocks, head_dim] fp32; the last may be short.

    >>> block_means(torch.tensor([[0.0], [2.0], [5.0]]), 2).tolist()
    [[1.0], [5.0]]
    """
    whole = x.shape[0] // block_tokens * block_tokens
    means = x[:whole].view(-1, block_tokens, x.shape[1]).mean(1, dtype=torch.float32)
    if whole == x.shape[0]:
        return means
    return torch.cat([means, x[whole:].mean(0, keepdim=True, dtype=torch.float32)])


def best_blocks(queries: torch.Tensor, keys: torch.Tensor, rows: HeadRows) -> torch.Tensor:
    """The best key blocks of every query block, [rows, min(budget_blocks, key blocks)], ascending.

    queries [rows, head_dim] stand for query blocks first.. of `rows`, keys [last, head_dim] for
    key blocks 0..; a query block with fewer causal blocks than the budget has them all in front.
    """
    row = torch.arange(rows.first, rows.last, device=queries.device)[:, None]
    block = torch.arange(rows.last, device=queries.device)
    # Finite and below the sink's score, so that no score, however large, competes with the blocks
    # that are always in, nor with -inf, which marks the future.
    limit = torch.finfo(torch.float32).max / 2
    scores = (queries @ keys.T).nan_to_num(0.0).clamp(-limit, limit)
    scores[:, 0] = torch.finfo(torch.float32).max
    scores.masked_fill_(block == row, torch.inf).masked_fill_(block > row, -torch.inf)
    kept = min(rows.budget_blocks, rows.last)
    return scores.topk(kept, dim=1, sorted=False).indices.sort(dim=1).values


def _joined(best: torch.Tensor, rows: HeadRows) -> torch.Tensor:
    """The first min(budget_blocks, row + 1) of every row of `best`, one after another."""
    row = torch.arange(rows.first, rows.last, device=best.device)
    length = (row + 1).clamp(max=rows.budget_blocks)
    tiles = causal_tiles(rows.budget_blocks, rows.last) - causal_tiles(
        rows.budget_blocks, rows.first
    )
    position = torch.arange(best.shape[1], device=best.device)
    # A boolean index would have to ask the device how many it found: what does not belong to a
    # list goes to one place past the end instead.
    place = torch.where(
        position < length[:, None], (length.cumsum(0) - length)[:, None] + position, tiles
    )
    return best.new_empty(tiles + 1).scatter_(0, place.flatten(), best.flatten())[:tiles]


def causal_tiles(budget_blocks: int, rows: int) -> int:
    """Sum over query blocks 0..rows-1 of min(budget_blocks, row + 1)."""
    ramp = min(budget_blocks, rows)
    return ramp * (ramp + 1) // 2 + (rows - ramp) * ramp


def _causal_blocks(rows: HeadRows, device: torch.device) -> torch.Tensor:
    """Blocks 0..row for every row of `rows`, one list after another."""
    lower = torch.tril_indices(rows.last - rows.first, rows.last, offset=rows.first, device=device)
    return lower[1]
