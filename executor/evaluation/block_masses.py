"""How much attention every query block pays to every key block: estimated, or the truth."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from executor.inference.policy import LayerCall
from profiles.selection import SAMPLED

Masses = Callable[[LayerCall, int], Tensor]
"""fp32 [query_heads, query blocks, key blocks] of a call in blocks of so many tokens: each query
block's sum to 1 over the key blocks that it sees."""

ROWS_AT_ONCE = 256
STRIDE = 8
"""Of antidiagonals: the finer of the paper's two."""


def row_blocks(call: LayerCall, block_tokens: int) -> Tensor:
    """The absolute block of every new query row, int64 [new tokens]."""
    rows = torch.arange(call.cached, call.keys.shape[1], device=call.q.device)
    return rows // block_tokens


def visible_blocks(call: LayerCall, block_tokens: int) -> Tensor:
    """Which key blocks a query block sees, bool [query blocks, key blocks]: up to its own."""
    count = -(-call.keys.shape[1] // block_tokens)
    key = torch.arange(count, device=call.q.device)
    return key <= key[call.cached // block_tokens :, None]


def visible_keys(call: LayerCall, first: int, last: int) -> Tensor:
    """Which keys the new rows [first, last) see, bool [rows, keys up to the last row's own]."""
    row = torch.arange(call.cached + first, call.cached + last, device=call.q.device)[:, None]
    key = torch.arange(call.cached + last, device=call.q.device)
    return key <= row


def per_query_head(call: LayerCall, kept: Tensor) -> Tensor:
    """Keys or values [kv_heads, ...] repeated for the query heads that share them."""
    return kept.repeat_interleave(call.q.shape[0] // kept.shape[0], dim=0)


def pooled_masses(call: LayerCall, block_tokens: int) -> Tensor:
    """Softmax of the mean query's product with the mean keys, as FlexPrefill estimates (arXiv
    2502.20766, section 3.2)."""
    block = row_blocks(call, block_tokens)
    keys = torch.arange(call.keys.shape[1], device=call.q.device) // block_tokens
    logits = _means(call.q, block - block[0]) @ per_query_head(call, _means(call.keys, keys)).mT
    unseen = ~visible_blocks(call, block_tokens)
    return torch.softmax((logits * call.scaling).masked_fill(unseen, -torch.inf), dim=-1)


def sampled_masses(call: LayerCall, block_tokens: int) -> Tensor:
    """The attention of the rows that `Sampled` takes of a block: what our own budgets choose by."""
    block = row_blocks(call, block_tokens)
    place = block - block[0]
    counts = place.bincount()
    first = (counts.cumsum(0) - counts)[:, None]
    part = torch.arange(SAMPLED.rows + 1, device=call.q.device)
    edges = counts[:, None] * part // SAMPLED.rows
    # A block of fewer rows has each of them once.
    rows = (first + edges[:, 1:] - 1)[edges.diff() > 0]
    sums = _by_block(call, rows, block_tokens, place[rows], len(counts))
    return sums / place[rows].bincount()[:, None]


def antidiagonal_masses(call: LayerCall, block_tokens: int) -> Tensor:
    """XAttention's estimate (arXiv 2503.16428, section 3.1): sums along every STRIDE-th
    antidiagonal of the logits, their softmax over the keys summed by block.

    A call that begins inside a run of STRIDE rows, or ends in one, has zeros in what is missing.
    """
    stride, head_dim = min(STRIDE, block_tokens), call.q.shape[2]
    first = call.cached % stride
    queries = pad(call.q.float(), (0, 0, first, -(first + call.q.shape[1]) % stride))
    keys = pad(call.keys.float(), (0, 0, 0, -call.keys.shape[1] % stride))
    rows = queries.reshape(len(queries), -1, stride * head_dim)
    columns = keys.reshape(len(keys), -1, stride, head_dim).flip(2).flatten(2)
    logits = rows @ per_query_head(call, columns).mT * (call.scaling / stride)
    run = torch.arange(rows.shape[1], device=rows.device) + call.cached // stride
    future = torch.arange(columns.shape[1], device=rows.device) > run[:, None]
    weights = torch.softmax(logits.masked_fill(future, -torch.inf), dim=-1)
    total, size = -(-call.keys.shape[1] // block_tokens), block_tokens // stride
    by_block = pad(weights, (0, total * size - weights.shape[-1]))
    by_block = by_block.view(*by_block.shape[:2], total, size).sum(dim=-1)
    return _means(by_block, run // size - run[0] // size)


def exact_masses(call: LayerCall, block_tokens: int) -> Tensor:
    """The attention itself, summed over each key block and averaged over the query block's rows."""
    block = row_blocks(call, block_tokens)
    place = block - block[0]
    rows = torch.arange(call.q.shape[1], device=call.q.device)
    counts = place.bincount()
    return _by_block(call, rows, block_tokens, place, len(counts)) / counts[:, None]


def _by_block(
    call: LayerCall, rows: Tensor, block_tokens: int, place: Tensor, query_blocks: int
) -> Tensor:
    """Attention of new `rows` by key block, summed by their `place`: fp32 [heads, query_blocks,
    key blocks]."""
    keys = per_query_head(call, call.keys.float())
    total = -(-call.keys.shape[1] // block_tokens)
    sums = keys.new_zeros(call.q.shape[0], query_blocks, total)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some, where = (x[first : first + ROWS_AT_ONCE] for x in (rows, place))
        logits = call.q[:, some].float() @ keys.mT * call.scaling
        future = torch.arange(keys.shape[1], device=rows.device) > (call.cached + some)[:, None]
        weights = torch.softmax(logits.masked_fill(future, -torch.inf), dim=-1)
        padded = pad(weights, (0, total * block_tokens - weights.shape[-1]))
        by_block = padded.view(*padded.shape[:2], total, block_tokens).sum(dim=-1)
        sums.index_add_(1, where, by_block)
    return sums


def _means(x: Tensor, place: Tensor) -> Tensor:
    """Means of x [heads, tokens, head_dim] over the tokens of each place, fp32."""
    counts = place.bincount()
    sums = x.new_zeros(x.shape[0], len(counts), x.shape[2], dtype=torch.float32)
    return sums.index_add_(1, place, x.float()) / counts[:, None]
