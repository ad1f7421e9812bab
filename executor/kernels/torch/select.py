"""The lists of a layout filled through torch: one entry after another, or, by sampled rows, all of
those together that read the same keys."""

import torch

from executor.kernels.batch import Cache, sequence_keys
from executor.kernels.layout import Layout, list_range
from executor.kernels.means import KeyPieces, key_pieces
from executor.kernels.patterns import Pooled, Sampled, VerticalSlash, rule_pieces, runs
from executor.kernels.sampled import lists_at_once, most_pieces, sampled_scores, stored_lists
from executor.kernels.torch.compiled import choose_sampled
from executor.kernels.torch.means import key_means, query_means
from executor.kernels.torch.scores import piece_lse
from executor.kernels.vertical_slash import line_masses


def fill_lists(q: torch.Tensor, cache: Cache, layout: Layout, indices: torch.Tensor) -> None:
    """Fill indices int32 [stored] with the lists of `layout`, q [heads, new tokens, head_dim]."""
    kinds = [(blocks.pattern, blocks.sequence, blocks.group) for blocks in layout.heads]
    for (pattern, *_), begin, end in runs(kinds):
        if isinstance(pattern, Sampled):
            _by_samples(q, cache, layout, begin, end, pattern, indices)
    pieces: KeyPieces | None = None
    keys = torch.empty(0)
    for entry, blocks in enumerate(layout.heads):
        lists = slice(*list_range(layout, entry, entry + 1))
        stored = layout.start[lists] >= 0
        length = layout.length[lists][stored]
        if not len(length) or isinstance(blocks.pattern, Sampled):
            continue
        first, last = (x[stored] for x in layout.own_pieces(lists))
        if isinstance(blocks.pattern, Pooled):
            if pieces is None:
                pieces = key_pieces(layout)
                keys = key_means(cache, pieces, layout.piece_tokens)
            queries = query_means(q, layout, entry, entry + 1)[stored]
            begin, count = int(pieces.start[blocks.sequence]), int(last.max()) + 1
            scores = queries @ keys[blocks.group, begin : begin + count].T
            found = best_pieces(scores, first, last, int(length[0])).flatten()
        elif isinstance(blocks.pattern, VerticalSlash):
            lines = line_masses(piece_lse, q, cache, layout, entry, entry + 1, blocks.pattern)
            scores = line_scores(lines[0][0], lines[1][0], first, last)
            found = best_pieces(scores, first, last, int(length[0])).flatten()
        else:
            place = torch.arange(int(length.max()), device=q.device)
            found = rule_pieces(
                blocks.pattern, layout.per_block, place, last[:, None], length[:, None]
            )
            found = found[place < length[:, None]].int()
        begin = int(layout.start[lists][stored][0])
        indices[begin : begin + len(found)] = found


def _by_samples(
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    first: int,
    last: int,
    pattern: Sampled,
    indices: torch.Tensor,
) -> None:
    """Fill the lists of entries [first, last), which read the same keys, some of each at a time."""
    blocks = layout.heads[first]
    tokens = layout.chunks[blocks.sequence].total_tokens
    keys = sequence_keys(cache, blocks.sequence, blocks.group, tokens)
    run = range(*list_range(layout, first, last))
    if choose_sampled(q, keys, layout, run, pattern.rows, indices):
        return
    lists = _by_query_block(layout, stored_lists(layout, first, last))
    if not lists.numel():
        return
    at_once = lists_at_once(pattern, most_pieces(layout, first, last)) // (last - first)
    for some in torch.split(lists, max(1, at_once), dim=1):
        numbers = some[(some >= 0).any(1)]
        pieces = int(layout.own_pieces(numbers[numbers >= 0])[1].max()) + 1
        scores = sampled_scores(piece_lse, q, cache, layout, numbers, pieces, pattern)
        for of_entry, masses in zip(numbers, scores, strict=True):
            stored = of_entry >= 0
            mine = of_entry[stored]
            if len(mine):
                begin, kept = int(layout.start[mine[0]]), int(layout.length[mine[0]])
                found = best_pieces(masses[stored], *layout.own_pieces(mine), kept)
                indices[begin : begin + found.numel()] = found.flatten()


def _by_query_block(layout: Layout, numbers: torch.Tensor) -> torch.Tensor:
    """The lists `numbers` [entries, lists], those of a query block in a column: [entries, blocks].

    Entries that are not of the same rows, as parts of heads are, are scored together only where
    they see the same keys.
    """
    entry, place = (numbers >= 0).nonzero(as_tuple=True)
    found = numbers[entry, place]
    blocks, column = torch.unique(layout.query_block[found], return_inverse=True)
    aligned = numbers.new_full((len(numbers), len(blocks)), -1)
    aligned[entry, column] = found
    return aligned


def best_pieces(
    scores: torch.Tensor, first: torch.Tensor, last: torch.Tensor, kept: int
) -> torch.Tensor:
    """The `kept` best of pieces 0..last of each query block, int32 [query blocks, kept], rising.

    scores fp32 [query blocks, pieces], overwritten; first, last [query blocks]: its own pieces, no
    more than `kept`. They go before all others, then piece 0; NaN counts as 0.
    """
    piece = torch.arange(scores.shape[1], device=scores.device)
    first, last = first[:, None], last[:, None]
    # Finite and below the sink's score, so that no score, however large, competes with the pieces
    # that are always in, nor with -inf, which marks the future.
    limit = torch.finfo(torch.float32).max / 2
    scores.nan_to_num_(0.0).clamp_(-limit, limit)
    scores[:, 0] = torch.finfo(torch.float32).max
    scores.masked_fill_(piece >= first, torch.inf).masked_fill_(piece > last, -torch.inf)
    return scores.topk(kept, dim=1, sorted=False).indices.sort(dim=1).values.int()


def line_scores(
    column: torch.Tensor, diagonal: torch.Tensor, first: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """Scores of pieces [pieces] by their columns and diagonals, fp32 [query blocks, pieces].

    Piece p of a query block whose own pieces are `first`..`last` [query blocks] scores column[p]
    plus the mean of diagonal[own - p] over its own pieces, 0 for those before p.
    """
    piece, own = torch.arange(len(column), device=first.device), last + 1 - first
    scores = torch.zeros(len(first), len(column), device=first.device)
    for nth in range(int(own.max())):
        distance = (first + nth)[:, None] - piece
        absent = (distance < 0) | (nth >= own)[:, None]
        found = diagonal[distance.clamp(0, len(diagonal) - 1)]
        scores += found.masked_fill_(absent, 0.0)
    return scores / own[:, None] + column
