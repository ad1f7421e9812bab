"""Attention as its definition says, in float64 and with a dense mask, and inputs to try it on."""

import math

import torch

from executor.kernels.select import BlockLists, HeadRows


def random_qkv(heads, groups, tokens, head_dim, *, seed=0, scale=1.0, dtype=torch.float32):
    """q [heads, tokens, head_dim], k and v [groups, tokens, head_dim]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((heads, tokens, head_dim), *[(groups, tokens, head_dim)] * 2)
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return (q * scale).to(dtype), (k * scale).to(dtype), v.to(dtype)


def list_of(lists: BlockLists, entry: int, row: int) -> list[int]:
    """Key blocks of one head's query block."""
    number = entry * lists.query_blocks + row
    return lists.indices[lists.indptr[number] : lists.indptr[number + 1]].tolist()


def random_lists(heads: list[HeadRows], query_blocks: int, block_tokens: int, seed=0) -> BlockLists:
    """Lists that keep the promises of BlockLists, drawn by chance."""
    generator = torch.Generator().manual_seed(seed)
    lengths, indices = [0], []
    for rows in heads:
        for row in range(query_blocks):
            inside = rows.first <= row < rows.last
            others = torch.randperm(row, generator=generator)[: rows.budget_blocks - 1].tolist()
            chosen = sorted([*others, row]) if inside else []
            lengths.append(len(chosen))
            indices += chosen
    return BlockLists(
        tuple(heads),
        query_blocks,
        block_tokens,
        torch.tensor(lengths).cumsum(0).int(),
        torch.tensor(indices, dtype=torch.int32),
    )


def reference(q, k, v, lists: BlockLists):
    """out [entries, tokens, head_dim] and lse [entries, tokens], float64.

    Rows outside a range are 0 and -inf.
    """
    tokens = q.shape[1]
    position = torch.arange(tokens)
    out = torch.zeros(len(lists.heads), *q.shape[1:], dtype=torch.float64)
    lse = torch.full(out.shape[:2], -math.inf, dtype=torch.float64)
    for entry, rows in enumerate(lists.heads):
        blocks = torch.zeros(lists.query_blocks, lists.query_blocks, dtype=torch.bool)
        for row in range(lists.query_blocks):
            blocks[row, list_of(lists, entry, row)] = True
        mask = blocks.repeat_interleave(lists.block_tokens, 0)[:tokens]
        mask = mask.repeat_interleave(lists.block_tokens, 1)[:, :tokens]
        mask &= position[None, :] <= position[:, None]
        scores = q[rows.head].double() @ k[rows.group].double().T / math.sqrt(q.shape[2])
        scores.masked_fill_(~mask, -math.inf)
        lse[entry] = scores.logsumexp(1)
        computed = mask.any(1)
        weights = scores[computed].softmax(1)
        out[entry, computed] = weights @ v[rows.group].double()
    return out, lse


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of `wanted`."""
    return float((found.double() - wanted).norm() / wanted.norm())
