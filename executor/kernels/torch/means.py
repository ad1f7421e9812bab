"""The mean of the tokens that a block really has, in fp32."""

import torch

from executor.kernels.batch import Cache, sequence_keys
from executor.kernels.layout import Layout
from executor.kernels.means import KeyPieces


def key_means(cache: Cache, pieces: KeyPieces, piece_tokens: int) -> torch.Tensor:
    """Mean keys of `pieces`, fp32 [groups, pieces, head_dim]; strides are free."""
    groups = cache.keys.shape[0 if cache.pages is None else 1]
    found = [cache.keys.new_empty(groups, 0, cache.keys.shape[-1], dtype=torch.float32)]
    for sequence, tokens in enumerate(pieces.tokens.tolist()):
        keys = [sequence_keys(cache, sequence, group, tokens) for group in range(groups)]
        found.append(torch.stack([block_means(x, piece_tokens) for x in keys]))
    return torch.cat(found, dim=1)


def query_means(q: torch.Tensor, layout: Layout, first: int, last: int) -> torch.Tensor:
    """Mean of the new query rows of every query block of entries [first, last), fp32 [lists,
    head_dim].

    q [heads, new tokens, head_dim].
    """
    size = layout.block_tokens
    found = [q.new_empty(0, q.shape[2], dtype=torch.float32)]
    for blocks, entry in zip(layout.heads[first:last], layout.entries[first:last], strict=True):
        origin, cached, total = entry[3:].tolist()
        begin, end = max(cached, blocks.first * size), min(total, blocks.last * size)
        if blocks.first < blocks.last:
            x = q[blocks.head, origin + begin : origin + end]
            found.append(block_means(x, size, missing=begin - blocks.first * size))
    return torch.cat(found)


def block_means(x: torch.Tensor, block_tokens: int, missing: int = 0) -> torch.Tensor:
    """Mean of every block of x [tokens, head_dim], [blocks, head_dim] fp32.

    The last block may be short; the first one lacks `missing` tokens in front.

    >>> block_means(torch.tensor([[0.0], [2.0], [5.0]]), 2).tolist()
    [[1.0], [5.0]]
    >>> block_means(torch.tensor([[0.0], [2.0], [4.0]]), 2, missing=1).tolist()
    [[0.0], [3.0]]
    """
    lead = min(len(x), block_tokens - missing) if missing else 0
    whole = lead + (len(x) - lead) // block_tokens * block_tokens
    inner = x[lead:whole].reshape((whole - lead) // block_tokens, block_tokens, x.shape[1])
    ends = [part.mean(0, keepdim=True, dtype=torch.float32) for part in (x[:lead], x[whole:])]
    return torch.cat(
        [*ends[: bool(lead)], inner.mean(1, dtype=torch.float32), *ends[1 : 1 + (whole < len(x))]]
    )
