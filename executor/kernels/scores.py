"""What a few query rows give to every key block, exactly: the log-sum-exp of their scores there.

A softmax over all keys follows from it (Online normalizer calculation, arXiv 1805.02867), with a
number per block instead of one per key.
"""

from dataclasses import dataclass

import torch

from executor.kernels.batch import Cache
from executor.kernels.means import sequence_keys

SCORE_BYTES = 256 * 2**20
"""Bound on the scores alive at once: what is scored goes through in runs that keep to it."""


@dataclass(frozen=True, eq=False)
class QueryRows:
    """Query rows that read the keys of one group and sequence together.

    group, sequence int32 [entries]; head, token (index in q) and position int32 [entries, rows]:
    a row sees keys 0..position of its sequence, none where it is -1.
    """

    group: torch.Tensor
    sequence: torch.Tensor
    head: torch.Tensor
    token: torch.Tensor
    position: torch.Tensor


def block_lse(
    q: torch.Tensor,
    cache: Cache,
    rows: QueryRows,
    block_tokens: int,
    blocks: int,
    *,
    use_triton: bool,
) -> torch.Tensor:
    """Natural log-sum-exp of the scaled scores of every row in every block, fp32.

    q [heads, tokens, head_dim]; result [entries, rows, blocks], -inf where a row sees no key.
    """
    if use_triton:
        from executor.kernels import scores_triton

        return scores_triton.block_lse(q, cache, rows, block_tokens, blocks)
    found = q.new_full((*rows.position.shape, blocks), -torch.inf, dtype=torch.float32)
    tokens = (rows.position.amax(1) + 1).tolist()
    places = zip(rows.sequence.tolist(), rows.group.tolist(), tokens, strict=True)
    for entry, (sequence, group, count) in enumerate(places):
        if not count:
            continue
        keys = sequence_keys(cache, sequence, group, count, block_tokens).float()
        queries = q[rows.head[entry].long(), rows.token[entry].long()].float()
        seen = -(-count // block_tokens)
        scores = queries.new_full((len(queries), seen * block_tokens), -torch.inf)
        torch.mm(queries, keys.T, out=scores[:, :count]).mul_(q.shape[2] ** -0.5)
        future = torch.arange(count, device=q.device) > rows.position[entry][:, None]
        scores[:, :count].masked_fill_(future, -torch.inf)
        found[entry, :, :seen] = scores.view(-1, seen, block_tokens).logsumexp(-1)
    return found


def row_masses(lse: torch.Tensor) -> torch.Tensor:
    """Every row's softmax over all its keys, summed by block, like lse [..., blocks].

    0 in a row that sees no key or whose scores overflow.
    """
    return (lse - lse.logsumexp(-1, keepdim=True)).exp_().nan_to_num_(0.0)
