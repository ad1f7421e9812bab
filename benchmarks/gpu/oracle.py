"""Attention as its definition says, in float64 with a dense mask, on the device and vectorised."""

import math

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES, Layout

ROWS_AT_ONCE = 2048


def prefill_oracle(
    q: torch.Tensor, cache: Cache, layout: Layout, indices: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """out like q and lse [heads, new tokens], float64; NaN in rows that no list computes."""
    out = torch.full(q.shape, torch.nan, dtype=torch.float64, device=q.device)
    lse = torch.full(q.shape[:2], torch.nan, dtype=torch.float64, device=q.device)
    size, piece, begin = layout.block_tokens, layout.piece_tokens, 0
    for rows, entry in zip(layout.heads, layout.entries.tolist(), strict=True):
        head, group, sequence, origin, cached, total = entry
        end = begin + rows.last - rows.first
        seen = allowed_pieces(layout, indices, begin, end, -(-total // piece))
        keys, values = sequence_kv(cache, sequence, group, total)
        first, last = max(cached, rows.first * size), min(total, rows.last * size)
        for at in range(first, last, ROWS_AT_ONCE):
            token = torch.arange(at, min(at + ROWS_AT_ONCE, last), device=q.device)
            mask = seen[token // size - rows.first].repeat_interleave(piece, 1)[:, :total]
            mask &= torch.arange(total, device=q.device) <= token[:, None]
            place = origin + token
            out[head, place], lse[head, place] = attend(q[head, place], keys, values, mask)
        begin = end
    return out, lse


def allowed_pieces(
    layout: Layout, indices: torch.Tensor, begin: int, end: int, pieces: int
) -> torch.Tensor:
    """Which pieces of keys lists [begin, end) hold, bool [lists, pieces]."""
    length, start = layout.length[begin:end, None].long(), layout.start[begin:end, None].long()
    most = int(length.max()) if end > begin else 1
    place = torch.arange(most, device=indices.device).expand(end - begin, -1)
    # Past its end a list repeats its last piece, which it holds anyway.
    place = torch.minimum(place, length - 1)
    stored = indices if len(indices) else indices.new_zeros(1)
    chosen = torch.where(
        start == ALL_PIECES, place, stored[(start + place).clamp(0, len(stored) - 1)].long()
    )
    allowed = torch.zeros(end - begin, pieces, dtype=torch.bool, device=indices.device)
    return allowed.scatter_(1, chosen, True)


def decode_oracle(
    q: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    lists: DecodeLists,
    context_tokens: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """out like q and lse [heads, new tokens], float64; NaN in rows of no entry."""
    out = torch.full(q.shape, torch.nan, dtype=torch.float64, device=q.device)
    lse = torch.full(q.shape[:2], torch.nan, dtype=torch.float64, device=q.device)
    size, context = layout.piece_tokens, context_tokens.tolist()
    for entry, seen in zip(layout.lists, listed_pieces(layout, lists), strict=True):
        total = context[entry.sequence]
        keys, values = sequence_kv(cache, entry.sequence, entry.group, total)
        heads = list(entry.heads)
        mask = seen.repeat_interleave(size)[:total].expand(len(heads), -1)
        rows = q[heads, entry.token]
        out[heads, entry.token], lse[heads, entry.token] = attend(rows, keys, values, mask)
    return out, lse


def listed_pieces(layout: DecodeLayout, lists: DecodeLists) -> torch.Tensor:
    """Which pieces of keys every entry's part of its list holds, bool [entries, most pieces]."""
    device = lists.indices.device
    held = torch.zeros(len(layout.lists), layout.most_pieces, dtype=torch.bool, device=device)
    places = zip(lists.first.tolist(), lists.count.tolist(), layout.start.tolist(), strict=True)
    for row, (first, count, start) in zip(held, places, strict=True):
        if start == ALL_PIECES:
            row[first : first + count] = True
        else:
            row[lists.indices[start + first : start + first + count].long()] = True
    return held


def sequence_kv(cache: Cache, sequence: int, group: int, total: int) -> list[torch.Tensor]:
    """keys and values [total, head_dim] of one sequence and group, float64."""
    if cache.starts is not None:
        first = int(cache.starts[sequence])
        return [x[group, first : first + total].double() for x in (cache.keys, cache.values)]
    assert cache.pages is not None
    pages = cache.pages[sequence, : -(-total // cache.page_tokens)].long()
    return [x[pages, group].flatten(0, 1)[:total].double() for x in (cache.keys, cache.values)]


def attend(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [rows, head_dim] and log-sum-exp [rows]; 0 and -inf for a row that sees no key."""
    scores = (q.double() @ keys.T) / math.sqrt(q.shape[1])
    scores = scores.masked_fill(~mask, -torch.inf)
    lse = scores.logsumexp(1)
    weights = (scores - lse[:, None]).exp().nan_to_num(0.0)
    return weights @ values, lse


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of `wanted`, where `wanted` is not NaN.

    Infinite where what is wanted and what is untouched do not lie in the same places: `found` was
    NaN before, so that rows nobody computes must still be.
    """
    computed = ~wanted.isnan()
    if not torch.equal(computed, ~found.isnan()):
        return math.inf
    known, right = found[computed].double(), wanted[computed]
    infinite = right.isinf()
    if not torch.equal(known[infinite], right[infinite]):
        return math.inf
    difference = (known - right)[~infinite].norm() / right[~infinite].norm().clamp(min=1e-30)
    return float(difference)
