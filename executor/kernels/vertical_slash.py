"""How much attention the last queries of a chunk give to columns and diagonals of pieces.

The vertical-slash estimate of MInference (arXiv 2407.02490, section 3.2 and algorithm 2), pooled
from token lines to lines of pieces: the union of its token lines touches nearly every piece. What
a piece of queries gives to a piece of keys belongs to a column and to a diagonal; it is divided
between them by the multiplicative updates of Lee and Seung (Algorithms for Non-negative Matrix
Factorization, NIPS 2000, theorem 2), which fit the sum of both.
"""

from dataclasses import dataclass

import torch

from executor.kernels.batch import Cache
from executor.kernels.layout import Layout
from executor.kernels.patterns import VerticalSlash
from executor.kernels.scores import SCORE_BYTES, PieceLse, QueryRows, row_masses

BYTES_PER_SCORE = 24
"""What stays alive for one row and piece: log-sum-exp, mass, and a copy of each in between."""
UPDATES = 4


@dataclass(frozen=True, eq=False)
class Parts:
    """What scored rows give to pieces of keys, summed over the rows of a piece of queries.

    mass fp32 [entries, query pieces, pieces], newest query piece first; rows fp32 [entries, query
    pieces]: how many scored; distance int64 like mass: pieces from the key's to the query's,
    negative in the future.
    """

    mass: torch.Tensor
    rows: torch.Tensor
    distance: torch.Tensor

    def by_distance(self, x: torch.Tensor) -> torch.Tensor:
        """x, shaped like mass, summed along diagonals, [entries, pieces]."""
        found = x.gather(2, self.distance.clamp(min=0))
        return found.masked_fill_(self.distance < 0, 0.0).sum(1)

    def along_diagonals(self, diagonal: torch.Tensor) -> torch.Tensor:
        """Every piece's value of `diagonal` [entries, pieces], shaped like mass, 0 ahead."""
        found = diagonal[:, None].expand_as(self.mass).gather(2, self.distance.clamp(min=0))
        return found.masked_fill_(self.distance < 0, 0.0)


def entries_at_once(rows: int, pieces: int) -> int:
    """How many entries' line masses fit into SCORE_BYTES."""
    return max(1, SCORE_BYTES // max(1, BYTES_PER_SCORE * rows * pieces))


def scored_size(layout: Layout, first: int, last: int, pattern: VerticalSlash) -> tuple[int, int]:
    """Scored rows and pieces of the entries [first, last), the most that one of them has."""
    chunks = [layout.chunks[rows.sequence] for rows in layout.heads[first:last]]
    most = max(chunk.total_tokens for chunk in chunks)
    new = max(chunk.new_tokens for chunk in chunks)
    return min(pattern.scored_rows, -(-new // pattern.row_step)), -(-most // layout.piece_tokens)


def line_masses(
    piece_lse: PieceLse,
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    first: int,
    last: int,
    pattern: VerticalSlash,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mass of columns and of diagonals of pieces, both fp32 [entries, pieces].

    For entries [first, last) of `layout`: a row gives about column[p] + diagonal[d] to piece p, d
    before its own, as far as the scored rows tell. Those are new tokens, counted back
    from an entry's last one in steps of `row_step`. A row whose scores overflow counts for nothing.
    """
    count, pieces = scored_size(layout, first, last, pattern)
    rows = last_rows(layout.entries[first:last], count, pattern.row_step)
    lse = piece_lse(q, cache, rows, layout.piece_tokens, pieces)
    newest = (layout.entries[first:last, 5] - 1) // layout.piece_tokens
    query_pieces = most_query_pieces(count, layout.piece_tokens, pattern)
    return _divide(
        _parts(row_masses(lse), rows.position // layout.piece_tokens, newest, query_pieces)
    )


def most_query_pieces(count: int, piece_tokens: int, pattern: VerticalSlash) -> int:
    """Pieces that `count` scored rows may lie in, from the newest one back."""
    return (count - 1) * pattern.row_step // piece_tokens + 2


def last_rows(entries: torch.Tensor, count: int, step: int) -> QueryRows:
    """`count` new tokens of every entry, `step` apart up to the last; position -1 where none is."""
    cached, total = entries[:, 4], entries[:, 5]
    back = torch.arange(count - 1, -1, -1, device=entries.device) * step
    position = total[:, None] - 1 - back
    position = torch.where(position >= cached[:, None], position, -1).int()
    return QueryRows.at(entries, position)


def _parts(mass: torch.Tensor, own: torch.Tensor, newest: torch.Tensor, query_pieces: int) -> Parts:
    """From mass [entries, rows, pieces], each row's `own` piece and each entry's `newest` one."""
    piece = newest[:, None] - torch.arange(query_pieces, device=mass.device)
    # Sums of what overflowed or was not there are 0, all others 1.
    real = mass.sum(2) > 0
    member = ((own[:, None] == piece[:, :, None]) & real[:, None]).float()
    distance = piece[:, :, None] - torch.arange(mass.shape[2], device=mass.device)
    return Parts(member @ mass, member.sum(2), distance.long())


def _divide(parts: Parts) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns and diagonals whose sum fits the parts, per scored row."""
    seen = parts.rows[:, :, None] * (parts.distance >= 0)
    column_rows = seen.sum(1).clamp(min=1.0)
    diagonal_rows = parts.by_distance(seen).clamp(min=1.0)
    column = parts.mass.sum(1) / column_rows
    diagonal = parts.by_distance(parts.mass) / diagonal_rows
    for _ in range(UPDATES):
        both = column[:, None] + parts.along_diagonals(diagonal)
        held = parts.mass * (column[:, None] / both).nan_to_num_(0.0)
        column = held.sum(1) / column_rows
        diagonal = parts.by_distance(parts.mass - held) / diagonal_rows
    return column, diagonal
