"""What stands for a block when blocks are chosen: the mean of the tokens it really has, in fp32.

MoBA (arXiv 2502.13189, section 2.2) and SpargeAttn (arXiv 2502.18137, section 3.2) pool so.
"""

from dataclasses import dataclass

import torch

from executor.kernels.batch import Cache
from executor.kernels.layout import Layout


@dataclass(frozen=True, eq=False)
class KeyBlocks:
    """The key blocks of the sequences a layout computes, one sequence after another.

    start, tokens int32 [sequences]: a sequence's first block here and its keys, 0 where the layout
    computes none of its rows; sequence int32 [count]: every block's.
    """

    start: torch.Tensor
    tokens: torch.Tensor
    sequence: torch.Tensor


def key_blocks(layout: Layout) -> KeyBlocks:
    """The key blocks that `layout` may choose from, computed on its device."""
    table = layout.entries
    computed = {rows.sequence for rows in layout.heads}
    count = sum(-(-layout.chunks[s].total_tokens // layout.block_tokens) for s in computed)
    tokens = table.new_zeros(len(layout.chunks)).scatter_(0, table[:, 2].long(), table[:, 5])
    blocks = (tokens + layout.block_tokens - 1) // layout.block_tokens
    start = blocks.cumsum(0, dtype=torch.int32) - blocks
    return KeyBlocks(start, tokens, torch.repeat_interleave(blocks, output_size=count))


def key_means(
    cache: Cache, blocks: KeyBlocks, block_tokens: int, *, use_triton: bool
) -> torch.Tensor:
    """Mean keys of `blocks`, fp32 [groups, blocks, head_dim]; strides are free."""
    if use_triton:
        from executor.kernels import means_triton

        return means_triton.key_means(cache, blocks, block_tokens)
    groups = cache.keys.shape[0 if cache.pages is None else 1]
    found = [cache.keys.new_empty(groups, 0, cache.keys.shape[-1], dtype=torch.float32)]
    for sequence, tokens in enumerate(blocks.tokens.tolist()):
        keys = [sequence_keys(cache, sequence, g, tokens, block_tokens) for g in range(groups)]
        found.append(torch.stack([block_means(x, block_tokens) for x in keys]))
    return torch.cat(found, dim=1)


def query_means(
    q: torch.Tensor, layout: Layout, first: int, last: int, *, use_triton: bool
) -> torch.Tensor:
    """Mean of the new query rows of every query block of entries [first, last), fp32 [lists,
    head_dim].

    q [heads, new tokens, head_dim]. Triton skips the lists that hold every block and leaves their
    means as the memory was found.
    """
    if use_triton:
        from executor.kernels import means_triton

        return means_triton.query_means(q, layout, *list_range(layout, first, last))
    size = layout.block_tokens
    found = [q.new_empty(0, q.shape[2], dtype=torch.float32)]
    for rows, entry in zip(layout.heads[first:last], layout.entries[first:last], strict=True):
        origin, cached, total = entry[3:].tolist()
        begin, end = max(cached, rows.first * size), min(total, rows.last * size)
        if rows.first < rows.last:
            x = q[rows.head, origin + begin : origin + end]
            found.append(block_means(x, size, missing=begin - rows.first * size))
    return torch.cat(found)


def list_range(layout: Layout, first: int, last: int) -> tuple[int, int]:
    """The lists of entries [first, last): from which number to before which."""
    begin = sum(rows.last - rows.first for rows in layout.heads[:first])
    return begin, begin + sum(rows.last - rows.first for rows in layout.heads[first:last])


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


def sequence_keys(
    cache: Cache, sequence: int, group: int, tokens: int, block_tokens: int
) -> torch.Tensor:
    """The first `tokens` keys of a sequence in `group`, [tokens, head_dim]; reads the tables."""
    if cache.starts is not None:
        first = int(cache.starts[sequence])
        return cache.keys[group, first : first + tokens]
    assert cache.pages is not None
    pages = cache.pages[sequence, : -(-tokens // block_tokens)].long()
    return cache.keys[pages, group].flatten(0, 1)[:tokens]
