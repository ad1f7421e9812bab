"""Log-sum-exp of a few query rows in every piece of keys, a run of rows at a time."""

import math

import torch

from executor.kernels.batch import Cache, sequence_keys
from executor.kernels.patterns import runs
from executor.kernels.scores import QueryRows

RUN_ROWS = 192
"""Rows scored at once against the keys that the last of them sees: fewer would read the keys too
often and pay too many calls, and more would score too many keys ahead of most of them. Between 64
and 192 it makes little difference."""


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
        memory = keys.new_empty(step * (last - first) * (tokens + piece_tokens))
        for begin in range(0, count, step):
            some = slice(begin, begin + step)
            part = rows.part(entries, some)
            _score(q, keys, part, piece_tokens, memory, found[entries, some])
    return found


def _score(
    q: torch.Tensor,
    keys: torch.Tensor,
    rows: QueryRows,
    piece_tokens: int,
    memory: torch.Tensor,
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
    scores = memory[: len(position) * seen * piece_tokens].view(len(position), -1)
    scores[:, end:] = -torch.inf
    torch.mm(queries, keys[:end].T, out=scores[:, :end])
    # By slices: a mask of every score would take nearly as long as the product. A group's heads
    # mostly sample the same rows, whose future is hidden in all of them together.
    alike = bool((rows.position == rows.position[0]).all())
    by_row = scores.view(len(present) if alike else 1, -1, scores.shape[1])
    for row, last in zip(by_row.unbind(1), position.tolist(), strict=False):
        row[:, last + 1 : end].fill_(-torch.inf)
    greatest = scores.amax(1, keepdim=True)
    torch.exp2(scores.sub_(greatest), out=scores)
    sums = scores.view(len(position), seen, piece_tokens).sum(2)
    target[..., :seen][present] = sums.log2_().add_(greatest).mul_(math.log(2))
