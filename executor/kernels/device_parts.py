"""One result out of what several devices computed of a head's list: torch alone, on any device.

FlashAttention-2 (arXiv 2307.08691, section 3.1): parts weighted by their log-sum-exps.
"""

import torch


def join_device_parts(outs: torch.Tensor, lses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """out [..., head_dim] and lse [...] of the whole from outs [parts, ..., head_dim] and lses
    [parts, ...] (natural logarithm) of devices that each computed a part of a head's list.

    Parts with lse -inf are left out, whatever their out holds; with no part left: 0 and -inf.

    >>> out, lse = join_device_parts(torch.tensor([[2.0], [4.0]]), torch.tensor([0.0, 0.0]))
    >>> out.tolist(), round(float(lse), 4)
    ([3.0], 0.6931)
    """
    lse = lses.float().logsumexp(0)
    weights = (lses.float() - lse.masked_fill(lse == -torch.inf, 0.0)).exp()[..., None]
    weighted = torch.where(weights > 0, outs.float() * weights, 0.0)
    return weighted.sum(0).to(outs.dtype), lse
