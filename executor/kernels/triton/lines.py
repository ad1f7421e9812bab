"""Columns and diagonals of pieces in Triton, as `kernels.vertical_slash` defines them.

Seven launches: the scored rows' sums (`scores.piece_sums`), what the rows of each piece of queries
give to every piece of keys, then that divided between columns and diagonals, all of them at once,
UPDATES times after the first. An update reads its parts twice, along columns and along diagonals:
at 131,072 tokens in pieces of 16 those of a head are 1.1 MB, of 32 heads what an H100's L2 holds.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from functools import partial

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.layout import Layout
from executor.kernels.patterns import VerticalSlash
from executor.kernels.triton.scores import add_row, piece_sums
from executor.kernels.triton.top_pieces import launch_options
from executor.kernels.vertical_slash import UPDATES, last_rows, most_query_pieces, scored_size

STEP = 512
"""Columns, and diagonals, of one program."""


def line_masses(
    q: torch.Tensor, cache: Cache, layout: Layout, first: int, last: int, pattern: VerticalSlash
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `kernels.vertical_slash.line_masses`."""
    count, pieces = scored_size(layout, first, last, pattern)
    rows = last_rows(layout.entries[first:last], count, pattern.row_step)
    sums = piece_sums(q, cache, rows, layout.piece_tokens, pieces)
    entries, parts = last - first, most_query_pieces(count, layout.piece_tokens, pattern)
    fours = triton.cdiv(pieces, 4)
    floats = partial(torch.empty, dtype=torch.float32, device=q.device)
    mass, counted = floats(entries, parts, 4 * fours), floats(entries, parts)
    where = (rows.position, *rows.position.stride(), count)
    parts_kernel[(entries, parts)](
        *where,
        pattern.row_step,
        sums,
        sums.shape[2] // 4,
        mass,
        fours,
        counted,
        PIECE=layout.piece_tokens,
        **launch_options(pieces),
    )
    # Each aligned for itself: parts of one tensor are not.
    made = [(floats(entries, pieces), floats(entries, pieces)) for _ in range(2)]
    for update in range(UPDATES + 1):
        lines_kernel[(entries, triton.cdiv(pieces, STEP))](
            *where,
            mass,
            fours,
            counted,
            parts,
            pieces,
            update,
            *made[0],
            *made[1],
            PIECE=layout.piece_tokens,
            STEP=STEP,
        )
        made.reverse()
    return made[0]


@triton.jit(
    do_not_specialize=["position_entry", "position_row", "count", "step", "sum_fours", "fours"],
)
def parts_kernel(
    position_ptr,
    position_entry,
    position_row,
    count,
    step,
    sums_ptr,
    sum_fours,
    mass_ptr,
    fours,
    counted_ptr,
    PIECE: tl.constexpr,
    PIECES: tl.constexpr,
):
    """What an entry's scored rows in one piece of queries give to every piece, and how many count.

    Rows are `step` apart up to the newest one, which is the last of `count`; pieces of queries are
    counted back from that one's.
    """
    entry, nth = tl.program_id(0), tl.program_id(1)
    position_at = position_ptr + entry * position_entry
    newest = tl.load(position_at + (count - 1) * position_row)
    own = newest // PIECE - nth
    nearest = tl.maximum(newest - (own + 1) * PIECE + step, 0) // step
    farthest = tl.minimum((newest - own * PIECE) // step, count - 1)
    mass = tl.zeros([PIECES], tl.float32)
    counted = 0.0
    for back in range(nearest, farthest + 1):
        row = count - 1 - back
        position = tl.load(position_at + row * position_row)
        row_ptr = sums_ptr + (entry.to(tl.int64) * count + row) * sum_fours * 4
        mass, counts = add_row(mass, row_ptr, position, PIECE, PIECES)
        counted += counts.to(tl.float32)
    piece, part = tl.arange(0, PIECES), entry.to(tl.int64) * tl.num_programs(1) + nth
    mass = tl.where(piece <= own, mass, 0.0)
    tl.store(mass_ptr + part * fours * 4 + piece, mass, mask=piece < fours * 4)
    tl.store(counted_ptr + part, counted)


@triton.jit(
    do_not_specialize=[
        "position_entry",
        "position_row",
        "count",
        "fours",
        "parts",
        "pieces",
        "update",
    ]
)
def lines_kernel(
    position_ptr,
    position_entry,
    position_row,
    count,
    mass_ptr,
    fours,
    counted_ptr,
    parts,
    pieces,
    update,
    column_ptr,
    diagonal_ptr,
    next_column_ptr,
    next_diagonal_ptr,
    PIECE: tl.constexpr,
    STEP: tl.constexpr,
):
    """STEP columns and as many diagonals of an entry after one more update: the mean over the rows
    that see them of what they hold, at first everything, then their share by the last ones."""
    entry = tl.program_id(0)
    newest = tl.load(position_ptr + entry * position_entry + (count - 1) * position_row) // PIECE
    place = tl.program_id(1) * STEP + tl.arange(0, STEP)
    line, inside = entry.to(tl.int64) * pieces, place < pieces
    column = tl.zeros([STEP], tl.float32)
    diagonal = tl.zeros([STEP], tl.float32)
    if update > 0:
        column = tl.load(column_ptr + line + place, mask=inside, other=0.0)
        diagonal = tl.load(diagonal_ptr + line + place, mask=inside, other=0.0)
    column_sum = tl.zeros([STEP], tl.float32)
    diagonal_sum = tl.zeros([STEP], tl.float32)
    rows = tl.zeros([STEP], tl.float32)
    for nth in range(parts):
        own = newest - nth
        part = entry.to(tl.int64) * parts + nth
        # A column's piece is seen, and a diagonal has a piece, up to the same place.
        seen = inside & (place <= own)
        rows += tl.where(seen, tl.load(counted_ptr + part), 0.0)
        mass_at = mass_ptr + part * fours * 4
        in_column = tl.load(mass_at + place, mask=seen, other=0.0)
        in_diagonal = tl.load(mass_at + own - place, mask=seen, other=0.0)
        if update > 0:
            crossing = tl.load(diagonal_ptr + line + own - place, mask=seen, other=0.0)
            in_column *= _share(column, crossing)
            crossing = tl.load(column_ptr + line + own - place, mask=seen, other=0.0)
            in_diagonal -= in_diagonal * _share(crossing, diagonal)
        column_sum += in_column
        diagonal_sum += in_diagonal
    rows = tl.maximum(rows, 1.0)
    tl.store(next_column_ptr + line + place, column_sum / rows, mask=inside)
    tl.store(next_diagonal_ptr + line + place, diagonal_sum / rows, mask=inside)


@triton.jit
def _share(column, diagonal):
    """The column's part of both; nothing where both are."""
    both = column + diagonal
    return column / tl.where(both > 0.0, both, 1.0)
