"""Decode's lists through torch, entries of as many heads at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import floor

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES
from executor.kernels.patterns import Grid, Rule, lengths, rule_pieces
from executor.kernels.torch.consecutive import ZERO, Index, index_of, packed


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
    for alike in known.scored:
        sides = _sides(bounds, cache, alike, pieces[alike.sequence], layout)
        best = _best(_scores(q, sides, alike), alike.kept)
        if len(best) == layout.stored:
            indices = best
        elif alike.together:
            indices[alike.starts[0] : alike.starts[0] + len(best)] = best
        else:
            for start, part in zip(alike.starts, torch.split(best, list(alike.kept)), strict=True):
                indices[start : start + len(part)] = part
    return DecodeLists(known.first, known.count, indices)


@dataclass(frozen=True, eq=False)
class _Alike:
    """Entries of one sequence and of as many heads each: their `heads` one after another, their
    groups, how many pieces are kept and from where on; `together` where one begins behind the
    other."""

    sequence: int
    token: int
    heads: Index
    groups: Index
    kept: tuple[int, ...]
    starts: tuple[int, ...]
    together: bool


@dataclass(frozen=True, eq=False)
class _Known:
    """What follows from sequences' numbers of pieces: lists that need no scores and where they are
    stored, and what is computed of all, as DecodeLists say it."""

    listed: list[tuple[int, torch.Tensor]]
    scored: list[_Alike]
    first: torch.Tensor
    count: torch.Tensor


def _known(layout: DecodeLayout, pieces: tuple[int, ...]) -> _Known:
    length = [pieces[entry.sequence] for entry in layout.lists]
    listed, scored = [], []
    for number, (entry, start) in enumerate(zip(layout.lists, layout.starts, strict=True)):
        if start != ALL_PIECES and isinstance(entry.pattern, Rule) and length[number]:
            listed.append((start, _by_rule(entry.pattern, layout.budgets[number], length[number])))
            length[number] = len(listed[-1][1])
    for numbers in layout.scored:
        every = length[numbers[0]]
        # What lists all there is chooses nothing.
        chosen = [number for number in numbers if layout.budgets[number] < every]
        for number in set(numbers).difference(chosen):
            listed.append((layout.starts[number], torch.arange(every)))
        if chosen:
            scored.append(_alike(layout, chosen))
            for number in chosen:
                length[number] = layout.budgets[number]
    ends = [
        [floor(edge * n + 0.5) for edge in entry.part]
        for entry, n in zip(layout.lists, length, strict=True)
    ]
    first = torch.tensor([begin for begin, _ in ends], dtype=torch.int32)
    count = torch.tensor([end - begin for begin, end in ends], dtype=torch.int32)
    return _Known(listed, scored, first, count)


def _alike(layout: DecodeLayout, numbers: Sequence[int]) -> _Alike:
    entries = [layout.lists[number] for number in numbers]
    kept = tuple(layout.budgets[number] for number in numbers)
    starts = tuple(layout.starts[number] for number in numbers)
    after = tuple(start + count for start, count in zip(starts, kept, strict=True))
    return _Alike(
        entries[0].sequence,
        entries[0].token,
        index_of([head for entry in entries for head in entry.heads]),
        index_of([entry.group for entry in entries]),
        kept,
        starts,
        together=after[:-1] == starts[1:],
    )


def _by_rule(rule: Rule, budget: int, pieces: int) -> torch.Tensor:
    """The list of a sequence with so many pieces."""
    length = lengths(rule, budget, pieces - 1, pieces, Grid(1, pieces)).clamp(max=budget)
    place, newest = torch.arange(int(length)), torch.tensor([pieces - 1])
    return rule_pieces(rule, 1, place, newest, length)


def _scores(q: torch.Tensor, sides: torch.Tensor, alike: _Alike) -> torch.Tensor:
    """Scores fp32 [entries, pieces] by the bounds' `sides` fp32 [entries, 2 head_dim, pieces]: what
    an entry's heads say together, and above all of it the newest piece and the first."""
    queries = packed(q, alike.heads, alike.token, len(alike.kept))
    # Against the bounds side by side, low and high.
    signed = torch.cat((queries.clamp_max(0), queries.clamp_min(0)), 2)
    scores = torch.baddbmm(ZERO, signed, sides, beta=0, alpha=q.shape[2] ** -0.5)
    return scores.nan_to_num_(0.0).softmax(2).sum(1).add_(_always(sides.shape[2]))


@lru_cache(256)
def _always(pieces: int) -> torch.Tensor:
    """Added to scores of at most as many as heads: the newest piece before all, then the first."""
    found = torch.zeros(pieces)
    found[0], found[-1] = torch.finfo(torch.float32).max, torch.inf
    return found


def _sides(
    bounds: torch.Tensor, cache: Cache, alike: _Alike, pieces: int, layout: DecodeLayout
) -> torch.Tensor:
    """The bounds of the first `pieces` of the entries' sequence in their groups, low and high side
    by side, fp32 [entries, 2 head_dim, pieces]."""
    assert cache.pages is not None
    per_page = cache.page_tokens // layout.piece_tokens
    first = cache.first_pages[alike.sequence]
    if first is not None:
        found = bounds.narrow(0, first * per_page, pieces)
    else:
        rows = cache.pages[alike.sequence, : -(-pieces // per_page)]
        if per_page > 1:
            rows = rows[:, None] * per_page + torch.arange(per_page, dtype=rows.dtype)
        found = bounds.index_select(0, rows.flatten()[:pieces])
    if alike.groups != slice(0, bounds.shape[1]):
        found = found[:, alike.groups]
    return found.float().flatten(2).permute(1, 2, 0)


def _best(scores: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
    """Of each row the `kept` best, ascending, row after row."""
    most, least = max(kept), min(kept)
    best = scores.topk(most, dim=1, sorted=least < most).indices
    if least < most:
        # Behind all that are taken.
        best.masked_fill_(_beyond(kept), scores.shape[1])
    # A sort's own code would first have to come from memory, and topk's is there.
    best = best.topk(most, dim=1, largest=False).values.flatten()
    return best if least == most else best[best < scores.shape[1]]


@lru_cache(256)
def _beyond(counts: tuple[int, ...]) -> torch.Tensor:
    """Which of a row's places, bool [rows, most], are not its first so many."""
    return torch.arange(max(counts)) >= torch.tensor(counts)[:, None]
