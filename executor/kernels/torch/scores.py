"""Log-sum-exp of a few query rows in every piece of keys, a run of rows at a time."""

import math

import torch

from executor.kernels.batch import Cache, sequence_keys
from executor.kernels.patterns import runs
from executor.kernels.scores import QueryRows
from executor.kernels.torch.memory import Memory

LEAST_SUM, GREATEST_SUM = 2.0**-20, 2.0**100
"""Of a row's weights, its greatest score not taken off before the exponential: within these no
piece is lost that is less than 87 below. Others are scored again, in two passes more."""
RUN_ROWS = 96
"""Rows scored at once against the keys that the last of them sees: fewer would read the keys too
often and pay too many calls, and more would score too many keys ahead of most of them. Between 64
and 192 it makes little difference."""

_memory = Memory()


def piece_lse(
    q: torch.Tensor, cache: Cache, rows: QueryRows, piece_tokens: int, pieces: int
) -> torch.Tensor:
    """Natural log-sum-exp of the scaled scores of every row in every piece, fp32.

    q [heads, tokens, head_dim]; result [entries, rows, pieces], -inf where a row sees no key or its
    greatest score is more than 87 above a piece's. It costs least where an entry's positions ascend
    and neighbours, which are scored together, read the same keys.
    """
    found = q.new_full((*rows.position.shape, pieces), -torch.inf, dtype=torch.float32)
    count = rows.position.shape[1]
    places = list(zip(rows.sequence.tolist(), rows.group.tolist(), strict=True))
    for (sequence, group), first, last in runs(places):
        entries, step = slice(first, last), max(1, RUN_ROWS // (last - first))
        tokens = int(rows.position[entries].max()) + 1 if count else 0
        keys = sequence_keys(cache, sequence, group, tokens).float()
        for begin in range(0, count, step):
            some = slice(begin, begin + step)
            part = rows.part(entries, some)
            _score(q, keys, part, piece_tokens, found[entries, some])
    return found


def _score(
    q: torch.Tensor,
    keys: torch.Tensor,
    rows: QueryRows,
    piece_tokens: int,
    target: torch.Tensor,
) -> None:
    """Fill target [entries, rows, pieces] for rows that read `keys` [tokens, head_dim]."""
    present = rows.position >= 0
    position = rows.position[present]
    if not len(position):
        return
    end = int(position.max()) + 1
    # exp2 is PyTorch's own; MKL's exp takes nine times as long on some CPUs.
    scale = q.shape[2] ** -0.5 / math.log(2)
    queries = q[rows.head[present].long(), rows.token[present].long()].float() * scale
    seen = -(-end // piece_tokens)
    scores = _memory.room("scores", (len(position), seen * piece_tokens))
    torch.mm(queries, keys[:end].T, out=scores[:, :end])
    sums = _sums(scores, position.long(), piece_tokens)
    if not in_range(sums.sum(1), LEAST_SUM, GREATEST_SUM):
        torch.mm(queries, keys[:end].T, out=scores[:, :end])
        future = torch.arange(scores.shape[1]) > position[:, None]
        greatest = scores.masked_fill_(future, -torch.inf).amax(1, keepdim=True)
        sums = _sums(scores.sub_(greatest), position.long(), piece_tokens).log2_().add_(greatest)
    else:
        sums.log2_()
    target[..., :seen][present] = sums.mul_(math.log(2))


def _sums(scores: torch.Tensor, position: torch.Tensor, piece_tokens: int) -> torch.Tensor:
    """Of scores [rows, tokens of whole pieces], in their place, the sums of their powers of two in
    every piece, [rows, pieces], of the keys up to each row's position [rows] alone.

    What lies ahead of a row is summed and taken away again by pieces: a mask of every key would
    take longer than the product.
    """
    weights = torch.exp2(scores, out=scores).view(len(scores), -1, piece_tokens)
    sums = torch.mv(weights.view(-1, piece_tokens), weights.new_ones(piece_tokens))
    sums = sums.view(len(scores), -1)
    row, own = torch.arange(len(scores)), position // piece_tokens
    ahead = torch.arange(piece_tokens) > (position % piece_tokens)[:, None]
    sums[row, own] = weights[row, own].masked_fill_(ahead, 0.0).sum(1)
    return sums.masked_fill_(torch.arange(sums.shape[1]) > own[:, None], 0.0)


def in_range(sums: torch.Tensor, least: float, greatest: float) -> bool:
    """Whether all sums are numbers within these, so that nothing of them was lost."""
    low, high = sums.aminmax()
    return least <= float(low) and float(high) <= greatest
