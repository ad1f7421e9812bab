"""The best pieces of every list in Triton: no sort and no scratch memory.

A list's k-th largest score is found by bisection on the bits of the floats, as radix selection does
(Alabi et al., Fast k-Selection Algorithms for Graphics Processing Units, JEA 2012); a prefix sum
then writes what reaches it in ascending order. Scores of pooled means and of line masses never
touch memory: they are made where they are compared. Those of sampled rows are read.

A bit costs 4 instructions for each of a thread's 32 scores and ends once exactly as many scores are
left as are kept: simulated, after 13 to 20 of 31 bits for 2,048 to 16,384 masses of normally or t
distributed scores. Taking several bits at once was no less work by the machine code (sm_90, Triton
3.6, 8,192 pieces, a thread of 16): 78 instructions for one bit, 199 for two by three comparisons,
1,065 for eight by `tl.histogram`. A list of two sampled rows of 8,192 pieces is about 35,000 warp
instructions, two softmaxes included: 77 us for the 2,048 lists of a head of 131,072 tokens where an
H100's 132 x 4 schedulers are kept busy at 1.755 GHz, 1.1 % of dense attention at 600 TFLOP/s.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.layout import Layout
from executor.kernels.triton.arguments import lists_of
from executor.kernels.triton.rule_lists import last_piece
from executor.kernels.triton.scores import add_row

MOST_PIECES = 16384
"""Pieces that a list may be chosen from: wider rows of scores do not fit into registers."""
MOST_TOGETHER = 4
"""Lists of one program that read the mean keys together, where MOST_PIECES has room for them."""


def launch_options(pieces: int) -> dict[str, int]:
    """Width of a row of scores, and warps so that a thread holds 32 of them.

    At most 128 registers, so that a multiprocessor holds 16 warps: 2 of the longest rows but one.
    """
    assert pieces <= MOST_PIECES, f"{pieces} pieces of keys, but MOST_PIECES is {MOST_PIECES}"
    width = max(16, triton.next_power_of_2(pieces))
    return {"PIECES": width, "num_warps": max(1, width // 1024), "maxnreg": 128}


def pooled_options(pieces: int) -> dict[str, int]:
    """As `launch_options`, with as many lists to a program as fit."""
    options = launch_options(pieces)
    lists = min(MOST_TOGETHER, MOST_PIECES // options["PIECES"])
    return options | {"LISTS": lists, "num_warps": max(1, lists * options["PIECES"] // 1024)}


def pooled_lists(
    queries: torch.Tensor,
    keys: torch.Tensor,
    key_start: torch.Tensor,
    layout: Layout,
    first: int,
    pieces: int,
    indices: torch.Tensor,
) -> None:
    """Fill the stored lists from number `first` on, one for each of `queries`.

    queries fp32 [lists, head_dim] and keys fp32 [groups, pieces, head_dim] are means; those of
    sequence s begin at `key_start[s]` (int32). `pieces` is more than any list's last one.
    """
    if len(queries):
        options = pooled_options(pieces)
        pooled_lists_kernel[(triton.cdiv(len(queries), options["LISTS"]),)](
            queries,
            keys,
            key_start,
            lists_of(layout, indices),
            *keys.stride(),
            first,
            len(queries),
            DIM=queries.shape[1],
            **_grid(layout),
            **options,
        )


def line_lists(
    columns: torch.Tensor,
    diagonals: torch.Tensor,
    entry: int,
    layout: Layout,
    first: int,
    last: int,
    indices: torch.Tensor,
) -> None:
    """Fill the stored ones of lists [first, last), which belong to entries from `entry` on.

    columns, diagonals fp32 [entries, pieces]: piece p of a list scores columns[p] plus the mean of
    diagonals[own - p] over its query block's own pieces.
    """
    if first < last:
        options = launch_options(columns.shape[1])
        # Turned round to be read forwards: backwards its pointers take more registers than there
        # are. Behind are own pieces, whose scores do not matter.
        behind = torch.nn.functional.pad(diagonals.flip(1), (0, options["PIECES"]))
        line_lists_kernel[(last - first,)](
            columns.contiguous(),
            behind,
            lists_of(layout, indices),
            first,
            entry,
            columns.shape[1],
            **_grid(layout),
            **options,
        )


def sampled_lists(
    sums: torch.Tensor,
    position: torch.Tensor,
    numbers: torch.Tensor,
    layout: Layout,
    pieces: int,
    indices: torch.Tensor,
) -> None:
    """Fill the lists `numbers` int64 [entries, lists], stored ones or -1 for none.

    sums [entries, lists x rows, pieces or more] wide floats (`scores.piece_sums`) and position
    int32 [entries, lists x rows] of each list's sampled rows; `pieces` is more than any list's last
    one. A list takes the pieces that hold the most attention of its rows, each a softmax of its
    own; a row that overflows counts for nothing.
    """
    entries, lists = numbers.shape
    if numbers.numel():
        sampled_lists_kernel[(lists, entries)](
            sums,
            position,
            *position.stride(),
            numbers,
            *numbers.stride(),
            lists_of(layout, indices),
            position.shape[1] // lists,
            sums.shape[2] // 4,
            **_grid(layout),
            **launch_options(pieces),
        )


def _grid(layout: Layout) -> dict[str, int]:
    return {"PER_BLOCK": layout.per_block, "PIECE": layout.piece_tokens}


@triton.jit
def _running(x, PIECES: tl.constexpr):
    """Sums of x int32 [PIECES] up to every place, by rows: a third of one scan's instructions."""
    rows = tl.reshape(x, [PIECES // 16, 16])
    total = tl.sum(rows, 1)
    before = tl.cumsum(total, 0) - total
    return tl.reshape(tl.cumsum(rows, 1) + before[:, None], [PIECES])


@triton.jit
def keep_best(scores, first, last, length, out_ptr, PIECES: tl.constexpr):
    """Write the `length` best of pieces 0..last, ascending; ties go to the lower piece.

    scores fp32 [PIECES]. Pieces first..last, no more than `length`, go before all others, then
    piece 0; NaN counts as 0.
    """
    piece = tl.arange(0, PIECES)
    # NaN is no score, and -0.0 and 0.0 must tie.
    scores = tl.where((scores == 0.0) | (scores != scores), 0.0, scores)
    bits = scores.to(tl.int32, bitcast=True)
    # Negative floats grow downwards as integers: turned round, integers order as floats do.
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    key = tl.where(piece == 0, 0x7FFFFFFE, key)
    key = tl.where(piece >= first, 0x7FFFFFFF, key)
    key = tl.where(piece > last, -0x80000000, key)
    # A threshold that exactly `length` keys reach, or the largest one that more of them reach: from
    # its highest bit down, and no further than needed.
    reached = tl.sum((key >= 0).to(tl.int32), 0)
    threshold = tl.where(reached >= length, 0, -0x80000000).to(tl.int32)
    reached = tl.where(reached >= length, reached, length + 1)
    step = 0x40000000
    while (step > 0) & (reached != length):
        higher = threshold + step
        count = tl.sum((key >= higher).to(tl.int32), 0)
        threshold = tl.where(count >= length, higher, threshold)
        reached = tl.where(count >= length, count, reached)
        step = step // 2
    # Of too many that equal it the lower pieces are kept, those before a cut found the same way.
    room = length - tl.sum((key > threshold).to(tl.int32), 0)
    cut = tl.where(reached > length, 0, PIECES)
    step = tl.where(reached > length, PIECES // 2, 0)
    while step > 0:
        lower = (key == threshold) & (piece < cut + step)
        cut = tl.where(tl.sum(lower.to(tl.int32), 0) <= room, cut + step, cut)
        step = step // 2
    kept = (key > threshold) | ((key == threshold) & (piece < cut))
    place = _running(kept.to(tl.int32), PIECES) - 1
    tl.store(out_ptr + place, piece, mask=kept)


@triton.jit(do_not_specialize=["key_dim", "first", "count"])
def pooled_lists_kernel(
    queries_ptr,
    keys_ptr,
    key_start_ptr,
    lists,
    key_group,
    key_piece,
    key_dim,
    first,
    count,
    DIM: tl.constexpr,
    PER_BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
    LISTS: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Neighbouring ones of the `count` lists from `first` on, by the products of their mean queries
    with the mean keys; `lists`: `Lists`.

    Lists of one entry read every mean key together.
    """
    query = tl.program_id(0) * LISTS
    begin = first + query
    place = tl.arange(0, LISTS)
    stored = tl.load(lists.start + begin + place, mask=query + place < count, other=-1) >= 0
    entry = tl.load(lists.entry + begin + place, mask=stored, other=-1)
    query_block = tl.load(lists.query_block + begin + place, mask=stored, other=-1)
    last_entry = tl.max(entry, 0)
    piece = tl.arange(0, PIECES)
    for this in range(tl.min(tl.where(stored, entry, last_entry + 1), 0), last_entry + 1):
        own = entry == this
        table = lists.entries + 6 * this
        group = tl.load(table + 1).to(tl.int64)
        key_start = tl.load(key_start_ptr + tl.load(table + 2)).to(tl.int64)
        latest = tl.max(tl.where(own, query_block, -1), 0)
        causal = piece <= last_piece(lists.entries, this, latest, PER_BLOCK, PIECE)
        query_at = queries_ptr + (query + place).to(tl.int64) * DIM
        key_at = keys_ptr + group * key_group + key_start * key_piece
        scores = tl.zeros([LISTS, PIECES], tl.float32)
        for _ in range(DIM):
            keys = tl.load(key_at + piece * key_piece, mask=causal, other=0.0)
            scores += tl.load(query_at, mask=own, other=0.0)[:, None] * keys[None, :]
            query_at += 1
            key_at += key_dim
        for one in range(LISTS):
            if tl.max((own & (place == one)).to(tl.int32), 0) > 0:
                number = begin + one
                block = tl.load(lists.query_block + number)
                keep_best(
                    tl.sum(tl.where(place[:, None] == one, scores, 0.0), 0),
                    block * PER_BLOCK,
                    last_piece(lists.entries, this, block, PER_BLOCK, PIECE),
                    tl.load(lists.length + number),
                    lists.indices + tl.load(lists.start + number),
                    PIECES,
                )


@triton.jit(do_not_specialize=["first", "first_entry", "pieces"])
def line_lists_kernel(
    columns_ptr,
    diagonals_ptr,
    lists,
    first,
    first_entry,
    pieces,
    PER_BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
    PIECES: tl.constexpr,
):
    """One list by its entry's columns and diagonals of pieces; `lists`: `Lists`."""
    number = first + tl.program_id(0)
    start = tl.load(lists.start + number)
    if start >= 0:
        entry, query_block = tl.load(lists.entry + number), tl.load(lists.query_block + number)
        own_first = query_block * PER_BLOCK
        last = last_piece(lists.entries, entry, query_block, PER_BLOCK, PIECE)
        line = (entry - first_entry).to(tl.int64)
        piece = tl.arange(0, PIECES)
        scores = tl.zeros([PIECES], tl.float32)
        diagonals_ptr += line * (pieces + PIECES) + pieces - 1
        for own in range(own_first, last + 1):
            scores += tl.load(diagonals_ptr - own + piece)
        scores /= last + 1 - own_first
        scores += tl.load(columns_ptr + line * pieces + piece, mask=piece <= last, other=0.0)
        length = tl.load(lists.length + number)
        keep_best(scores, own_first, last, length, lists.indices + start, PIECES)


@triton.jit(
    do_not_specialize=[
        "position_entry",
        "position_row",
        "numbers_entry",
        "numbers_list",
        "rows",
        "fours",
    ],
    do_not_specialize_on_alignment=["position_ptr", "numbers_ptr"],
)
def sampled_lists_kernel(
    sums_ptr,
    position_ptr,
    position_entry,
    position_row,
    numbers_ptr,
    numbers_entry,
    numbers_list,
    lists,
    rows,
    fours,
    PER_BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
    PIECES: tl.constexpr,
):
    """One list by the attention of its `rows` sampled rows; `lists`: `Lists`."""
    nth, entry = tl.program_id(0), tl.program_id(1)
    number = tl.load(numbers_ptr + entry * numbers_entry + nth * numbers_list)
    if number >= 0:
        joint = tl.zeros([PIECES], tl.float32)
        for row in range(nth * rows, (nth + 1) * rows):
            position = tl.load(position_ptr + entry * position_entry + row * position_row)
            row_at = (entry.to(tl.int64) * (rows * tl.num_programs(0)) + row) * fours * 4
            joint, _ = add_row(joint, sums_ptr + row_at, position, PIECE, PIECES)
        query_block, entry_at = tl.load(lists.query_block + number), lists.entry + number
        last = last_piece(lists.entries, tl.load(entry_at), query_block, PER_BLOCK, PIECE)
        length = tl.load(lists.length + number)
        out_ptr = lists.indices + tl.load(lists.start + number)
        keep_best(joint, query_block * PER_BLOCK, last, length, out_ptr, PIECES)
