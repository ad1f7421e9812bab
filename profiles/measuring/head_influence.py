"""How much the loss moves with each head's attention, to first order.

MoA (arXiv 2406.14909, section 4.1): with A a head's attention and G the loss' gradient to it,
hiding key j from row i changes the loss by about -A_ij (G_ij - sum_k A_ik G_ik) / (1 - A_ij), the
softmax' renormalisation included. The quotient, boundless for a key that has a whole row, is left
out here: to first order in A_ij it is 1. A head's influence is the sum of what all its values would
change.
"""

from dataclasses import dataclass

import torch

from profiles.measuring.layer_attention import LayerAttention, probabilities, row_runs
from profiles.measuring.sampled_rows import SampledRows


@dataclass(frozen=True, eq=False)
class WeightedRows:
    """position int64 [rows], and what each row's sum counts in the mean over all rows, [rows]."""

    position: torch.Tensor
    weight: torch.Tensor


def weighted_rows(rows: SampledRows, predicting: torch.Tensor, tokens: int) -> WeightedRows:
    """Sampled rows, and beside them those that predict an answer, where they are no more.

    In the last layer the gradient reaches no other rows, which a sample would miss. Every other
    sampled row stands for as many as it was drawn from (Horvitz and Thompson, 1952), so that the
    mean over all rows is unbiased.
    """
    few = len(predicting) <= len(rows.position)
    exact = predicting if few else predicting[:0]
    sampled = rows.position[~torch.isin(rows.position, exact)]
    weight = torch.ones(len(exact) + len(sampled), dtype=torch.float64, device=sampled.device)
    weight[len(exact) :] = tokens / len(rows.position)
    return WeightedRows(torch.cat([exact, sampled]), weight / tokens)


@torch.no_grad()
def influence(call: LayerAttention, gradient: torch.Tensor, rows: WeightedRows) -> torch.Tensor:
    """Mean over rows of sum_j |A_ij (G_ij - sum_k A_ik G_ik)|, float64 [heads].

    `gradient` [heads, tokens, head_dim] is the loss' gradient to the attention's output o = A v,
    so that G_ij = gradient_i . v_j.
    """
    found = torch.zeros(len(call.q), dtype=torch.float64, device=call.q.device)
    for group, part in row_runs(call, rows.position):
        position = rows.position[part]
        a = probabilities(call, group, position, 0, call.tokens)
        heads = call.heads_of(group)
        g = gradient[heads][:, position].to(a.dtype) @ call.v[group].to(a.dtype).T
        moved = (a * (g - (a * g).sum(-1, keepdim=True))).abs().sum(-1, dtype=torch.float64)
        found[heads] += moved @ rows.weight[part]
    return found
