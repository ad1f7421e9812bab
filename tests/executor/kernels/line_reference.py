"""Columns and diagonals of pieces as vertical_slash defines them: in float64, with plain loops."""

import math
from collections import defaultdict

import torch

from executor.kernels.vertical_slash import UPDATES

from .reference import sequence_kv


def line_reference(q, cache, layout, entry, pieces):
    """column and diagonal [pieces], float64, of one entry."""
    head, group, sequence, origin, cached, total = layout.entries[entry].tolist()
    pattern, size = layout.heads[entry].pattern, layout.piece_tokens
    keys, _ = sequence_kv(cache, sequence, group, total)
    tokens = range(total - 1, cached - 1, -pattern.row_step)[: pattern.scored_rows]
    mass, rows = defaultdict(float), defaultdict(int)
    for token in tokens:
        scores = keys[: token + 1] @ q[head, origin + token].double() / math.sqrt(q.shape[2])
        rows[token // size] += 1
        for piece, part in enumerate(scores.softmax(0).split(size)):
            mass[token // size, piece] += float(part.sum())

    def averaged(values):
        column, diagonal, column_rows, diagonal_rows = torch.zeros(4, pieces, dtype=torch.float64)
        for (own, piece), value in values.items():
            column[piece] += value[0]
            diagonal[own - piece] += value[1]
            column_rows[piece] += rows[own]
            diagonal_rows[own - piece] += rows[own]
        return column / column_rows.clamp(min=1), diagonal / diagonal_rows.clamp(min=1)

    column, diagonal = averaged({place: (x, x) for place, x in mass.items()})
    for _ in range(UPDATES):
        shares = {}
        for (own, piece), x in mass.items():
            both = column[piece] + diagonal[own - piece]
            shares[own, piece] = (x * column[piece] / both, x * diagonal[own - piece] / both)
        column, diagonal = averaged(shares)
    return column, diagonal
