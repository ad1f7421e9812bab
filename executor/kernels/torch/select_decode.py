"""Decode's lists through torch, one entry after another."""

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeHeads, DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES
from executor.kernels.patterns import Grid, Rule, lengths, rule_pieces
from executor.kernels.torch.select import best_pieces


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
        pieces = -(-int(context_tokens[entry.sequence]) // layout.piece_tokens)
        if not pieces or start == ALL_PIECES:
            length[number] = pieces
            continue
        found = _list(q, bounds, cache, layout, entry, int(layout.budget[number]), pieces)
        length[number] = len(found)
        indices[start : start + len(found)] = found
    first, last = (layout.part.T.contiguous() * length.to(q.device) + 0.5).floor().int()
    return DecodeLists(first, last - first, indices)


def _list(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    entry: DecodeHeads,
    budget: int,
    pieces: int,
) -> torch.Tensor:
    """The list of `entry`, int32, whose sequence has so many `pieces`."""
    newest = torch.tensor([pieces - 1], device=q.device)
    if isinstance(entry.pattern, Rule):
        length = lengths(entry.pattern, budget, pieces - 1, pieces, Grid(1, pieces))
        length = length.clamp(max=budget).to(q.device)
        place = torch.arange(int(length), device=q.device)
        return rule_pieces(entry.pattern, 1, place, newest, length).int()
    rows = piece_rows(cache, entry.sequence, torch.arange(pieces, device=q.device), layout)
    queries = q[list(entry.heads), entry.token].float()
    # Against the bounds side by side, low and high.
    signed = torch.cat([queries.clamp(max=0), queries.clamp(min=0)], dim=1)
    scores = signed @ bounds[rows, entry.group].flatten(1).float().T * q.shape[2] ** -0.5
    joint = scores.nan_to_num_(0.0).softmax(1).sum(0, keepdim=True)
    return best_pieces(joint, newest, newest, min(budget, pieces))[0]


def piece_rows(
    cache: Cache, sequence: int, pieces: torch.Tensor, layout: DecodeLayout
) -> torch.Tensor:
    """Which rows of the bounds belong to `pieces` of a sequence, int64 like pieces."""
    assert cache.pages is not None
    per_page = cache.page_tokens // layout.piece_tokens
    return cache.pages[sequence, pieces // per_page].long() * per_page + pieces % per_page
