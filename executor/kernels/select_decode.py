"""Which key blocks a decoding sequence's new token attends to, by the bounds of its pages' keys.

A page's score is an upper bound of its tokens', as in Quest (arXiv 2406.10774, section 3.2): q_d
times the greatest key where q_d is positive, the least one where it is negative, summed over
dimensions d. The query heads of a list choose together: the sum of their softmaxes over the page
scores, as Native Sparse Attention does for a GQA group (arXiv 2502.11089, section 3.3.2), so that
one head's large logits do not decide alone. All patterns that score decode so: what sets them apart
in prefill, means, lines or sampled rows, are ways to speak for many queries, and a decode has one.
"""

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeHeads, DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_BLOCKS
from executor.kernels.patterns import SinkLocal, Strided, lengths, rule, rule_blocks
from executor.kernels.select import best_blocks


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

    q [heads, tokens, head_dim]; bounds [pages, groups, 2, head_dim], the paged cache's
    (`bounds.page_bounds`); context_tokens int32 [sequences], the new token included, 0 for a
    sequence that is not there. A list has n = min(budget, blocks of the sequence) blocks, the first
    and the newest always in and a score of NaN taken for 0; a strided one no more than its pattern
    has, and of those the first ones where the budget is smaller. The part is [floor(part[0] n +
    0.5), floor(part[1] n + 0.5)) of it, in float64. By itself Triton is used where q is on a GPU:
    shapes are static there and nothing waits for the device.
    """
    if q.is_cuda if use_triton is None else use_triton:
        from executor.kernels import select_decode_triton

        return select_decode_triton.select_decode(q, bounds, cache, layout, context_tokens)
    indices = torch.empty(layout.stored, dtype=torch.int32, device=q.device)
    length = torch.zeros(len(layout.lists), dtype=torch.float64)
    for number, entry in enumerate(layout.lists):
        start = int(layout.start[number])
        blocks = -(-int(context_tokens[entry.sequence]) // layout.block_tokens)
        if not blocks or start == ALL_BLOCKS:
            length[number] = blocks
            continue
        found = _list(q, bounds, cache, entry, int(layout.budget[number]), blocks)
        length[number] = len(found)
        indices[start : start + len(found)] = found
    first, last = (layout.part.T.contiguous() * length.to(q.device) + 0.5).floor().int()
    return DecodeLists(first, last - first, indices)


def _list(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    entry: DecodeHeads,
    budget: int,
    blocks: int,
) -> torch.Tensor:
    """The list of `entry`, int32, whose sequence has `blocks` key blocks."""
    row = torch.tensor([blocks - 1], device=q.device)
    if isinstance(entry.pattern, SinkLocal | Strided):
        length = lengths(entry.pattern, budget, blocks - 1, blocks).clamp(max=budget).to(q.device)
        place = torch.arange(int(length), device=q.device)
        return rule_blocks(rule(entry.pattern), place, row, length).int()
    assert cache.pages is not None
    pages = cache.pages[entry.sequence, :blocks].long()
    queries = q[list(entry.heads), entry.token].float()
    # Against the bounds side by side, low and high.
    signed = torch.cat([queries.clamp(max=0), queries.clamp(min=0)], dim=1)
    scores = signed @ bounds[pages, entry.group].flatten(1).float().T * q.shape[2] ** -0.5
    joint = scores.nan_to_num_(0.0).softmax(1).sum(0, keepdim=True)
    return best_blocks(joint, row, min(budget, blocks))[0]
