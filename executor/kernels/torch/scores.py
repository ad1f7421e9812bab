"""Log-sum-exp of a few query rows in every piece of keys, entry after entry."""

import torch

from executor.kernels.batch import Cache, sequence_keys
from executor.kernels.scores import QueryRows


def piece_lse(
    q: torch.Tensor, cache: Cache, rows: QueryRows, piece_tokens: int, pieces: int
) -> torch.Tensor:
    """Natural log-sum-exp of the scaled scores of every row in every piece, fp32.

    q [heads, tokens, head_dim]; result [entries, rows, pieces], -inf where a row sees no key.
    """
    found = q.new_full((*rows.position.shape, pieces), -torch.inf, dtype=torch.float32)
    tokens = (rows.position.amax(1) + 1).tolist()
    places = zip(rows.sequence.tolist(), rows.group.tolist(), tokens, strict=True)
    for entry, (sequence, group, count) in enumerate(places):
        if not count:
            continue
        keys = sequence_keys(cache, sequence, group, count).float()
        queries = q[rows.head[entry].long(), rows.token[entry].long()].float()
        seen = -(-count // piece_tokens)
        scores = queries.new_full((len(queries), seen * piece_tokens), -torch.inf)
        torch.mm(queries, keys.T, out=scores[:, :count]).mul_(q.shape[2] ** -0.5)
        future = torch.arange(count, device=q.device) > rows.position[entry][:, None]
        scores[:, :count].masked_fill_(future, -torch.inf)
        found[entry, :, :seen] = scores.view(-1, seen, piece_tokens).logsumexp(-1)
    return found
