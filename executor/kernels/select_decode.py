"""Which pieces of keys a decoding sequence's new token attends to, by the bounds of their keys.

A piece's score is an upper bound of its tokens', as in Quest (arXiv 2406.10774, section 3.2): q_d
times the greatest key where q_d is positive, the least one where it is negative, summed over
dimensions d. The query heads of a list choose together: the sum of their softmaxes over their
scores, as Native Sparse Attention does for a GQA group (arXiv 2502.11089, section 3.3.2), so that
one head's large logits do not decide alone. All patterns that score decode so: what sets them apart
in prefill, means, lines or sampled rows, are ways to speak for many queries, and a decode has one.
"""

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.implementation import implementation


def select_decode(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
    *,
    use_triton: bool | None = None,
) -> DecodeLists:
    """The lists of every entry for its new token, and the part of them this device computes.

    q [heads, tokens, head_dim]; bounds [pieces of all pages, groups, 2, head_dim], the paged
    cache's (`bounds.page_bounds`); context_tokens int32 [sequences], the new token included, 0 for
    a sequence that is not there. A list has n = min(budget, pieces of the sequence) pieces, the
    first and the newest always in and a score of NaN taken for 0; a strided one no more than its
    pattern has, and of those the first ones where the budget is smaller. The part is
    [floor(part[0] n + 0.5), floor(part[1] n + 0.5)) of it, in float64. By itself Triton is used
    where q is on a GPU: shapes are static there and nothing waits for the device.
    """
    by_triton = q.is_cuda if use_triton is None else use_triton
    found: DecodeLists = implementation(by_triton).decode_lists(
        q, bounds, cache, layout, context_tokens
    )
    return found
