"""Decode's lists through torch, one entry after another."""

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeHeads, DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_BLOCKS
from executor.kernels.patterns import SinkLocal, Strided, lengths, rule, rule_blocks
from executor.kernels.torch.select import best_blocks


def decode_lists(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
) -> DecodeLists:
    """As `kernels.select_decode.select_decode`."""
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
