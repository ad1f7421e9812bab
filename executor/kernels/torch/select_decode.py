"""Decode's lists through torch, entries of as many heads at once."""

from collections import defaultdict
from math import floor

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES
from executor.kernels.patterns import Grid, Rule, lengths, rule_pieces
from executor.kernels.torch.consecutive import index_of


def decode_lists(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
) -> DecodeLists:
    """As `kernels.select_decode.select_decode`."""
    indices = torch.empty(layout.stored, dtype=torch.int32, device=q.device)
    pieces = [-(-tokens // layout.piece_tokens) for tokens in context_tokens.tolist()]
    length = [pieces[entry.sequence] for entry in layout.lists]
    scored: dict[tuple[int, int], list[int]] = defaultdict(list)
    starts, budgets = layout.start.tolist(), layout.budget.tolist()
    for number, entry in enumerate(layout.lists):
        if not length[number] or starts[number] == ALL_PIECES:
            continue
        if isinstance(entry.pattern, Rule):
            found = _by_rule(entry.pattern, budgets[number], length[number]).to(q.device)
            indices[starts[number] : starts[number] + len(found)] = found
            length[number] = len(found)
        else:
            scored[entry.sequence, len(entry.heads)].append(number)
    for (sequence, _), alike in scored.items():
        scores = _scores(q, bounds, cache, layout, alike, pieces[sequence])
        kept = [min(budgets[number], pieces[sequence]) for number in alike]
        best = scores.topk(max(kept), dim=1).indices
        if min(kept) < max(kept):
            # Behind all that are taken, in the order that follows.
            spare = torch.arange(max(kept)) >= torch.tensor(kept)[:, None]
            best = best.masked_fill_(spare, pieces[sequence])
        for number, budget, found in zip(alike, kept, best.sort(dim=1).values, strict=True):
            indices[starts[number] : starts[number] + budget] = found[:budget]
            length[number] = budget
    ends = [
        [floor(edge * n + 0.5) for edge in part]
        for part, n in zip(layout.part.tolist(), length, strict=True)
    ]
    first = torch.tensor([begin for begin, _ in ends], dtype=torch.int32, device=q.device)
    count = [end - begin for begin, end in ends]
    return DecodeLists(first, torch.tensor(count, dtype=torch.int32, device=q.device), indices)


def _by_rule(rule: Rule, budget: int, pieces: int) -> torch.Tensor:
    """The list, int32, of a sequence with so many pieces."""
    length = lengths(rule, budget, pieces - 1, pieces, Grid(1, pieces)).clamp(max=budget)
    place, newest = torch.arange(int(length)), torch.tensor([pieces - 1])
    return rule_pieces(rule, 1, place, newest, length).int()


def _scores(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    alike: list[int],
    pieces: int,
) -> torch.Tensor:
    """Scores fp32 [entries, pieces] of entries of one sequence, of as many heads each: what their
    heads say together, and above all of it the newest piece and the first."""
    entries = [layout.lists[number] for number in alike]
    heads = [head for entry in entries for head in entry.heads]
    queries = q[index_of(heads), entries[0].token].float().view(len(entries), -1, q.shape[2])
    # Against the bounds side by side, low and high.
    signed = torch.cat([queries.clamp(max=0), queries.clamp(min=0)], dim=2)
    rows = piece_rows(cache, entries[0].sequence, pieces, layout)
    sides = (
        bounds[index_of(rows)][:, index_of([entry.group for entry in entries])].float().flatten(2)
    )
    scores = signed @ sides.permute(1, 2, 0) * q.shape[2] ** -0.5
    joint: torch.Tensor = scores.nan_to_num_(0.0).softmax(2).sum(1)
    joint[:, 0], joint[:, -1] = torch.finfo(torch.float32).max, torch.inf
    return joint


def piece_rows(cache: Cache, sequence: int, pieces: int, layout: DecodeLayout) -> list[int]:
    """Which rows of the bounds belong to the first `pieces` of a sequence."""
    assert cache.pages is not None
    per_page = cache.page_tokens // layout.piece_tokens
    pages = cache.pages[sequence, : -(-pieces // per_page)].tolist()
    return [page * per_page + nth for page in pages for nth in range(per_page)][:pieces]
