"""Decode's lists on the CPU: what budgets and rules say of lengths once, then entry after entry."""

from dataclasses import dataclass
from math import floor

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES
from executor.kernels.patterns import Grid, Rule, lengths, rule_pieces
from executor.kernels.torch.compiled import choose


def decode_lists(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
) -> DecodeLists:
    """As `kernels.select_decode.select_decode`."""
    pieces = tuple(-(-tokens // layout.piece_tokens) for tokens in context_tokens.tolist())
    known = layout.derive(_known, pieces)
    indices = torch.empty(layout.stored, dtype=torch.int64)
    for start, found in known.listed:
        indices[start : start + len(found)] = found
    chosen = known.chosen
    if not len(chosen) or choose(q, bounds, cache, layout, chosen, context_tokens, indices):
        return DecodeLists(known.first, known.count, indices)
    for number in chosen.tolist():
        entry, start, kept = layout.lists[number], layout.starts[number], layout.budgets[number]
        found = _bounds(bounds, cache, entry.sequence, entry.group, pieces[entry.sequence], layout)
        best = _scores(q[list(entry.heads), entry.token], found).topk(kept).indices
        indices[start : start + kept] = best.sort().values
    return DecodeLists(known.first, known.count, indices)


@dataclass(frozen=True, eq=False)
class _Known:
    """What follows from sequences' numbers of pieces: lists that need no scores and where they are
    stored, the entries that choose by scores, int32, and what is computed of all, as DecodeLists
    say it."""

    listed: list[tuple[int, torch.Tensor]]
    chosen: torch.Tensor
    first: torch.Tensor
    count: torch.Tensor


def _known(layout: DecodeLayout, pieces: tuple[int, ...]) -> _Known:
    length = [pieces[entry.sequence] for entry in layout.lists]
    listed, chosen = [], []
    for number, (entry, start) in enumerate(zip(layout.lists, layout.starts, strict=True)):
        if start == ALL_PIECES or not length[number]:
            continue
        budget, every = layout.budgets[number], length[number]
        if isinstance(entry.pattern, Rule):
            listed.append((start, _by_rule(entry.pattern, budget, every)))
            length[number] = len(listed[-1][1])
        elif budget < every:
            chosen.append(number)
            length[number] = budget
        else:
            listed.append((start, torch.arange(every)))
    ends = [
        [floor(edge * n + 0.5) for edge in entry.part]
        for entry, n in zip(layout.lists, length, strict=True)
    ]
    numbers = chosen, [begin for begin, _ in ends], [end - begin for begin, end in ends]
    return _Known(listed, *(torch.tensor(x, dtype=torch.int32) for x in numbers))


def _by_rule(rule: Rule, budget: int, pieces: int) -> torch.Tensor:
    """The list of a sequence with so many pieces."""
    length = lengths(rule, budget, pieces - 1, pieces, Grid(1, pieces)).clamp(max=budget)
    place, newest = torch.arange(int(length)), torch.tensor([pieces - 1])
    return rule_pieces(rule, 1, place, newest, length)


def _scores(q: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """Scores fp32 [pieces] by their bounds fp32 [pieces, 2, head_dim]: what the heads of q [heads,
    head_dim] say together, and above all of it the newest piece and the first."""
    q = q.float() * q.shape[1] ** -0.5
    scores = q.clamp_max(0) @ bounds[:, 0].T + q.clamp_min(0) @ bounds[:, 1].T
    found = scores.nan_to_num_(0.0).softmax(1).sum(0)
    found[0], found[-1] = torch.finfo(torch.float32).max, torch.inf
    return found


def _bounds(
    bounds: torch.Tensor,
    cache: Cache,
    sequence: int,
    group: int,
    pieces: int,
    layout: DecodeLayout,
) -> torch.Tensor:
    """Those of the first `pieces` of a sequence in a group, fp32 [pieces, 2, head_dim]."""
    assert cache.pages is not None
    per_page = cache.page_tokens // layout.piece_tokens
    piece = torch.arange(pieces)
    row = cache.pages[sequence, piece // per_page].long() * per_page + piece % per_page
    return bounds[row, group].float()
