"""One result out of attention over several parts of a list of keys, by their log-sum-exps.

FlashAttention-2 (arXiv 2307.08691, section 3.1). Torch alone, on any device: for parts that several
devices computed, too.
"""

import torch


def merge(outs: torch.Tensor, lses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """out [..., head_dim] and lse [...] of the whole from outs [parts, ..., head_dim] and lses
    [parts, ...] (natural logarithm), fp32 inside.

    Parts with lse -inf are left out, whatever their out holds; with no part left: 0 and -inf.

    >>> out, lse = merge(torch.tensor([[2.0], [4.0]]), torch.tensor([0.0, 0.0]))
    >>> out.tolist(), round(float(lse), 4)
    ([3.0], 0.6931)
    """
    lse = lses.float().logsumexp(0)
    weights = (lses.float() - lse.masked_fill(lse == -torch.inf, 0.0)).exp()[..., None]
    weighted = torch.where(weights > 0, outs.float() * weights, 0.0)
    return weighted.sum(0).to(outs.dtype), lse
