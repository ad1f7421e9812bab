"""How much of the attention mass the chosen blocks hold, estimated on a few query rows.

A list's log-sum-exp against that of all keys: exp(lse_chosen - lse_dense) is the sum of the
dense softmax over the chosen keys. Only the sampled rows are computed densely.
"""

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import PADDING, DecodeLayout
from executor.kernels.implementation import implementation
from executor.kernels.layout import Layout
from executor.kernels.scores import QueryRows

GOLDEN_RATIO = 0.5 * (1 + 5**0.5)


def recovery(
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    lse: torch.Tensor,
    samples: int,
    *,
    use_triton: bool | None = None,
) -> torch.Tensor:
    """Mean share of attention mass that every entry's lists captured, fp32 [entries].

    q [heads, new tokens, head_dim]; lse [heads, new tokens], what attention over the lists wrote
    (natural log). Of the n rows an entry computes, one in each of `samples` equal parts is looked
    at: row floor((i + frac((i + 1/2) phi)) n / samples), i < samples, phi the golden ratio. Rows in
    the middle of every part would lie at the same place of their blocks, where a look at the token
    before is always or never within the own block. An entry without rows has lost nothing: 1. Costs
    samples x context for every entry.
    """
    rows = sampled_rows(layout, samples)
    pieces = max(
        (layout.grid(sequence).pieces for sequence in range(len(layout.chunks))), default=0
    )
    return _mean(*_shares(q, cache, rows, lse, layout.piece_tokens, pieces, use_triton))


def decode_recovery(
    q: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
    lse: torch.Tensor,
    *,
    use_triton: bool | None = None,
) -> torch.Tensor:
    """Mean over its query heads of the mass that every entry captured, fp32 [entries].

    q, lse and the result as in `recovery`; context_tokens int32 [sequences], the new token
    included. An entry that computes a part of its list captures that part's mass: the parts' sum is
    the list's. Costs the context for every entry, whatever its part.
    """
    return _mean(*_of_decodes(q, cache, layout, context_tokens, lse, use_triton))


def head_recovery(
    q: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
    lse: torch.Tensor,
    *,
    use_triton: bool | None = None,
) -> torch.Tensor:
    """The mass that every entry captured of each of its heads, fp32 [entries, widest], 1 beyond
    them; as `decode_recovery`, which is their mean."""
    shares, there = _of_decodes(q, cache, layout, context_tokens, lse, use_triton)
    return shares.masked_fill(~there, 1.0)


def _of_decodes(
    q: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
    lse: torch.Tensor,
    use_triton: bool | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    sequence, token, group = layout.entries.unbind(1)
    newest = (context_tokens[sequence] - 1)[:, None].expand_as(layout.heads)
    there = layout.heads != PADDING
    rows = QueryRows(
        group,
        sequence,
        layout.heads.clamp(min=0),
        token[:, None].expand_as(layout.heads),
        torch.where(there, newest, -1).int(),
    )
    return _shares(q, cache, rows, lse, layout.piece_tokens, layout.most_pieces, use_triton)


def sampled_rows(layout: Layout, samples: int) -> QueryRows:
    """The rows that `recovery` looks at, [entries, samples]."""
    cached, total = layout.entries[:, 4], layout.entries[:, 5]
    entry, size = layout.entry.long(), layout.block_tokens
    none = torch.full_like(cached, torch.iinfo(torch.int32).max // size)
    first = none.scatter_reduce(0, entry, layout.query_block, "amin")
    last = torch.zeros_like(cached).scatter_reduce(0, entry, layout.query_block + 1, "amax")
    begin = torch.maximum(cached, first * size)
    rows = (torch.minimum(total, last * size) - begin)[:, None]
    part = torch.arange(samples, device=cached.device, dtype=torch.float64)
    place = (part + (part + 0.5) * GOLDEN_RATIO % 1) / samples
    position = begin[:, None] + (place * rows).floor().int()
    position = torch.where(rows > 0, position, -1).int()
    return QueryRows.at(layout.entries, position)


def _shares(
    q: torch.Tensor,
    cache: Cache,
    rows: QueryRows,
    lse: torch.Tensor,
    piece_tokens: int,
    pieces: int,
    use_triton: bool | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What was captured of every row, 0 where there is none, and whether there is one: [entries,
    rows]."""
    kernel = q.is_cuda if use_triton is None else use_triton
    every = implementation(kernel).piece_lse(q, cache, rows, piece_tokens, pieces).logsumexp(-1)
    real = rows.position >= 0
    share = (lse[rows.head, rows.token] - every).exp().clamp(max=1.0).masked_fill(~real, 0.0)
    return share, real


def _mean(share: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    count = real.sum(1)
    return torch.where(count > 0, share.sum(1) / count, 1.0)
