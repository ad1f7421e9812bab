"""Log-sum-exp of a few query rows in every piece of keys, entry after entry, a run of rows at a time.
"""

import math

import torch

from executor.kernels.batch import Cache, sequence_keys
from executor.kernels.scores import QueryRows

RUN_ROWS = 64
"""Rows scored against the keys that the last of them sees: fewer would read the keys too often,
and more would score too many keys ahead of most of them."""


def piece_lse(
    q: torch.Tensor, cache: Cache, rows: QueryRows, piece_tokens: int, pieces: int
) -> torch.Tensor:
    """Natural log-sum-exp of the scaled scores of every row in every piece, fp32.

    q [heads, tokens, head_dim]; result [entries, rows, pieces], -inf where a row sees no key or its
    greatest score is more than 87 above a piece's. Rows cost least in the order of their positions.
    """
    found = q.new_full((*rows.position.shape, pieces), -torch.inf, dtype=torch.float32)
    tokens = (rows.position.amax(1) + 1).tolist()
    places = zip(rows.sequence.tolist(), rows.group.tolist(), tokens, strict=True)
    # exp2 is PyTorch's own; MKL's exp takes nine times as long on some CPUs.
    scale = q.shape[2] ** -0.5 / math.log(2)
    for entry, (sequence, group, count) in enumerate(places):
        if not count:
            continue
        keys = sequence_keys(cache, sequence, group, count).float()
        queries = q[rows.head[entry].long(), rows.token[entry].long()].float() * scale
        memory = queries.new_empty(RUN_ROWS * (count + piece_tokens))
        runs = (x.split(RUN_ROWS) for x in (rows.position[entry], queries, found[entry]))
        for position, some, target in zip(*runs, strict=True):
            end = int(position.max()) + 1
            seen = -(-end // piece_tokens)
            scores = memory[: len(some) * seen * piece_tokens].view(len(some), -1)
            scores[:, end:] = -torch.inf
            torch.mm(some, keys[:end].T, out=scores[:, :end])
            # Before the first row's last key nothing is ahead of any.
            first = max(int(position.min()), 0)
            ahead = torch.arange(first, end, device=q.device) > position[:, None]
            scores[:, first:end].masked_fill_(ahead, -torch.inf)
            greatest = scores.amax(1, keepdim=True)
            torch.exp2(scores.sub_(greatest), out=scores)
            sums = scores.view(len(some), seen, piece_tokens).sum(2).log2_()
            target[:, :seen] = sums.add_(greatest).mul_(math.log(2))
        found[entry, rows.position[entry] < 0] = -torch.inf
    return found
