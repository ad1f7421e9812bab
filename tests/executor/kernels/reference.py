"""Attention as its definition says, in float64 and with a dense mask, and inputs to try it on."""

import math
from dataclasses import replace

import torch

from executor.kernels.batch import Cache, Chunk, query_starts
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES, Layout


def random_q(chunks, heads, head_dim, *, seed=0, scale=1.0, dtype=torch.float32):
    """q [heads, new tokens, head_dim]."""
    generator = torch.Generator().manual_seed(seed)
    tokens = query_starts(tuple(chunks))[-1]
    return (torch.randn(heads, tokens, head_dim, generator=generator) * scale).to(dtype)


def random_cache(
    chunks, groups, head_dim, page_tokens, *, paged=False, seed=1, scale=1.0, dtype=torch.float32
):
    """Keys and values of every sequence; NaN wherever no token is.

    Contiguous sequences stand one right behind the other; pages are shuffled, two of them unused.
    """
    generator = torch.Generator().manual_seed(seed)
    totals = [chunk.total_tokens for chunk in chunks]
    drawn = [torch.randn(2, groups, total, head_dim, generator=generator) for total in totals]
    drawn = [torch.stack([x[0] * scale, x[1]]).to(dtype) for x in drawn]
    if not paged:
        keys, values = torch.cat(drawn, dim=2)
        starts = torch.tensor([0, *totals[:-1]]).cumsum(0).int()
        return Cache(keys, values, starts=starts)
    blocks = [-(-total // page_tokens) for total in totals]
    shuffled = torch.randperm(sum(blocks) + 2, generator=generator).tolist()
    pool = torch.full((2, len(shuffled), groups, page_tokens, head_dim), torch.nan).to(dtype)
    pages = torch.zeros(len(blocks), max(blocks), dtype=torch.int32)
    for sequence, (x, count) in enumerate(zip(drawn, blocks, strict=True)):
        for block in range(count):
            pages[sequence, block] = page = shuffled.pop()
            part = x[:, :, block * page_tokens : (block + 1) * page_tokens]
            pool[:, page, :, : part.shape[2]] = part
    return Cache(pool[0], pool[1], pages=pages)


def sequence_kv(cache: Cache, sequence: int, group: int, total: int):
    """keys and values [total, head_dim] of one sequence and group, float64."""
    if cache.starts is not None:
        first = int(cache.starts[sequence])
        return [x[group, first : first + total].double() for x in (cache.keys, cache.values)]
    pages = cache.pages[sequence, : -(-total // cache.page_tokens)].long()
    return [x[pages, group].flatten(0, 1)[:total].double() for x in (cache.keys, cache.values)]


def random_indices(layout: Layout, seed=0) -> torch.Tensor:
    """Lists that keep the promises of Layout, drawn by chance."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.zeros(layout.stored, dtype=torch.int32)
    first, last = layout.own_pieces(slice(None))
    own = torch.stack([first, last], 1).tolist()
    for (first, last), length, start in zip(
        own, layout.length.tolist(), layout.start.tolist(), strict=True
    ):
        if start != ALL_PIECES:
            others = torch.randperm(first, generator=generator)[: length - (last + 1 - first)]
            mine = torch.arange(first, last + 1)
            indices[start : start + length] = torch.cat([others.sort().values, mine])
    return indices


def list_of(layout: Layout, indices: torch.Tensor, number: int) -> list[int]:
    """Pieces of list `number`."""
    start, length = int(layout.start[number]), int(layout.length[number])
    if start == ALL_PIECES:
        return list(range(length))
    return indices[start : start + length].tolist()


def prefill_reference(q, cache: Cache, layout: Layout, indices):
    """out like q and lse [heads, new tokens], float64; 0 and -inf in rows that no list computes."""
    block, size = layout.block_tokens, layout.piece_tokens
    out = torch.zeros(q.shape, dtype=torch.float64)
    lse = torch.full(q.shape[:2], -math.inf, dtype=torch.float64)
    for number in range(layout.lists):
        head, group, sequence, origin, cached, total = layout.entries[layout.entry[number]].tolist()
        row = int(layout.query_block[number])
        keys, values = sequence_kv(cache, sequence, group, total)
        for token in range(max(cached, row * block), min(total, (row + 1) * block)):
            chosen = list_of(layout, indices, number)
            seen = [t for b in chosen for t in range(b * size, (b + 1) * size) if t <= token]
            at = origin + token
            out[head, at], lse[head, at] = _attend(q[head, at], keys[seen], values[seen])
    return out, lse


def decode_reference(
    q, cache: Cache, layout: DecodeLayout, lists: DecodeLists, context_tokens: torch.Tensor
):
    """out like q and lse [heads, new tokens], float64; 0 and -inf where nothing is computed."""
    size = layout.piece_tokens
    out = torch.zeros(q.shape, dtype=torch.float64)
    lse = torch.full(q.shape[:2], -math.inf, dtype=torch.float64)
    for number, entry in enumerate(layout.lists):
        total = int(context_tokens[entry.sequence])
        keys, values = sequence_kv(cache, entry.sequence, entry.group, total)
        first, count = int(lists.first[number]), int(lists.count[number])
        start = int(layout.start[number])
        blocks = list(range(first, first + count))
        if start != ALL_PIECES:
            blocks = lists.indices[start + first : start + first + count].tolist()
        seen = [t for b in blocks for t in range(b * size, (b + 1) * size) if t < total]
        for head in entry.heads:
            at = (head, entry.token)
            out[at], lse[at] = _attend(q[at], keys[seen], values[seen])
    return out, lse


def _attend(q, keys, values):
    """One row: output [head_dim] and log-sum-exp; 0 and -inf without keys."""
    if not len(keys):
        return torch.zeros(q.shape, dtype=torch.float64), -math.inf
    scores = keys @ q.double() / math.sqrt(len(q))
    return scores.softmax(0) @ values, scores.logsumexp(0)


def whole_prompts(*tokens: int) -> tuple[Chunk, ...]:
    """Chunks of prompts that nothing of is cached."""
    return tuple(Chunk(0, count) for count in tokens)


def contexts(chunks) -> torch.Tensor:
    """Keys of every sequence, int32 [sequences]."""
    return torch.tensor([chunk.total_tokens for chunk in chunks], dtype=torch.int32)


def transposed_table(cache: Cache) -> Cache:
    """The same pages, but a table whose sequences stand next to each other and not its blocks."""
    assert cache.pages is not None
    return replace(cache, pages=cache.pages.T.contiguous().T)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of `wanted`."""
    return float((found.double() - wanted).norm() / wanted.norm())
