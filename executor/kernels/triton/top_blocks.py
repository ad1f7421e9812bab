"""The best blocks of every list in Triton: no sort and no scratch memory.

A list's k-th largest score is found by bisection on the bits of the floats, as radix selection does
(Alabi et al., Fast k-Selection Algorithms for Graphics Processing Units, JEA 2012); a prefix sum
then writes what reaches it in ascending order. Scores of pooled means and of line masses never
touch memory: they are made where they are compared. Those of sampled rows are read.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.layout import Layout

MOST_BLOCKS = 16384
"""Key blocks that a list may be chosen from: wider rows of scores do not fit into registers."""
MOST_TOGETHER = 4
"""Lists of one program that read the mean keys together, where MOST_BLOCKS has room for them."""
SLICED = ["entry_ptr", "row_ptr", "length_ptr", "start_ptr"]
"""Arguments that begin at some list: to compile for their alignment would stall later steps."""


def launch_options(blocks: int) -> dict[str, int]:
    """Width of a row of scores, and warps so that a thread holds 16 of them, 32 in the widest."""
    assert blocks <= MOST_BLOCKS, f"{blocks} key blocks, but MOST_BLOCKS is {MOST_BLOCKS}"
    width = max(16, triton.next_power_of_2(blocks))
    return {"BLOCKS": width, "num_warps": max(1, min(16, width // 512))}


def pooled_options(blocks: int) -> dict[str, int]:
    """As `launch_options`, with as many lists to a program as fit; a thread holds 32 scores."""
    options = launch_options(blocks)
    lists = min(MOST_TOGETHER, MOST_BLOCKS // options["BLOCKS"])
    return options | {"LISTS": lists, "num_warps": max(1, lists * options["BLOCKS"] // 1024)}


def pooled_lists(
    queries: torch.Tensor,
    keys: torch.Tensor,
    key_start: torch.Tensor,
    layout: Layout,
    first: int,
    blocks: int,
    indices: torch.Tensor,
) -> None:
    """Fill the stored lists from number `first` on, one for each of `queries`.

    queries fp32 [lists, head_dim] and keys fp32 [groups, key blocks, head_dim] are means; those of
    sequence s begin at `key_start[s]` (int32). `blocks` is more than any list's row.
    """
    if len(queries):
        options = pooled_options(blocks)
        pooled_lists_kernel[(triton.cdiv(len(queries), options["LISTS"]),)](
            queries,
            keys,
            key_start,
            layout.entries,
            layout.entry[first:],
            layout.query_block[first:],
            layout.length[first:],
            layout.start[first:],
            indices,
            *keys.stride(),
            len(queries),
            DIM=queries.shape[1],
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

    columns, diagonals fp32 [entries, blocks]: block b of row r scores columns[b] + diagonals[r - b]
    in its entry.
    """
    if first < last:
        line_lists_kernel[(last - first,)](
            columns.contiguous(),
            diagonals.contiguous(),
            entry,
            layout.entry[first:],
            layout.query_block[first:],
            layout.length[first:],
            layout.start[first:],
            indices,
            columns.shape[1],
            **launch_options(columns.shape[1]),
        )


def score_lists(
    scores: torch.Tensor, numbers: torch.Tensor, layout: Layout, indices: torch.Tensor
) -> None:
    """Fill the lists `numbers` int64 [...], stored ones or -1 for none, each by its own scores.

    scores fp32 [..., blocks], more than any list's row.
    """
    if numbers.numel():
        score_lists_kernel[(numbers.numel(),)](
            scores.contiguous(),
            numbers.contiguous(),
            layout.query_block,
            layout.length,
            layout.start,
            indices,
            scores.shape[-1],
            **launch_options(scores.shape[-1]),
        )


@triton.jit
def keep_best(scores, row, length, out_ptr, BLOCKS: tl.constexpr):
    """Write the `length` best of blocks 0..row, ascending; ties go to the lower block.

    scores fp32 [BLOCKS]. Blocks `row` and 0 go before all others, `row` first; NaN counts as 0.
    """
    block = tl.arange(0, BLOCKS)
    # NaN is no score, and -0.0 and 0.0 must tie.
    scores = tl.where((scores == 0.0) | (scores != scores), 0.0, scores)
    bits = scores.to(tl.int32, bitcast=True)
    # Negative floats grow downwards as integers: turned round, integers order as floats do.
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    key = tl.where(block == 0, 0x7FFFFFFE, key)
    key = tl.where(block == row, 0x7FFFFFFF, key)
    key = tl.where(block > row, -0x80000000, key)
    # The largest threshold that `length` keys reach, from its highest bit down.
    positive = tl.sum((key >= 0).to(tl.int32), 0) >= length
    threshold = tl.where(positive, 0, -0x80000000).to(tl.int32)
    step = 0x40000000
    for _ in range(31):
        higher = threshold + step
        threshold = tl.where(tl.sum((key >= higher).to(tl.int32), 0) >= length, higher, threshold)
        step = step // 2
    above = key > threshold
    tie = (key == threshold).to(tl.int32)
    room = length - tl.sum(above.to(tl.int32), 0)
    kept = above | ((tie > 0) & (tl.cumsum(tie, 0) <= room))
    place = tl.cumsum(kept.to(tl.int32), 0) - 1
    tl.store(out_ptr + place, block, mask=kept)


@triton.jit(do_not_specialize=["key_dim", "lists"], do_not_specialize_on_alignment=SLICED)
def pooled_lists_kernel(
    queries_ptr,
    keys_ptr,
    key_start_ptr,
    entries_ptr,
    entry_ptr,
    row_ptr,
    length_ptr,
    start_ptr,
    indices_ptr,
    key_group,
    key_block,
    key_dim,
    lists,
    DIM: tl.constexpr,
    LISTS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Neighbouring lists by the products of their mean queries with the mean keys.

    Lists of one entry read every mean key together.
    """
    begin = tl.program_id(0) * LISTS
    place = tl.arange(0, LISTS)
    stored = tl.load(start_ptr + begin + place, mask=begin + place < lists, other=-1) >= 0
    entry = tl.load(entry_ptr + begin + place, mask=stored, other=-1)
    row = tl.load(row_ptr + begin + place, mask=stored, other=-1)
    last = tl.max(entry, 0)
    block = tl.arange(0, BLOCKS)
    for this in range(tl.min(tl.where(stored, entry, last + 1), 0), last + 1):
        own = entry == this
        table = entries_ptr + 6 * this
        group = tl.load(table + 1).to(tl.int64)
        first = tl.load(key_start_ptr + tl.load(table + 2)).to(tl.int64)
        causal = block <= tl.max(tl.where(own, row, -1), 0)
        query_at = queries_ptr + (begin + place).to(tl.int64) * DIM
        key_at = keys_ptr + group * key_group + first * key_block
        scores = tl.zeros([LISTS, BLOCKS], tl.float32)
        for _ in range(DIM):
            keys = tl.load(key_at + block * key_block, mask=causal, other=0.0)
            scores += tl.load(query_at, mask=own, other=0.0)[:, None] * keys[None, :]
            query_at += 1
            key_at += key_dim
        for one in range(LISTS):
            if tl.max((own & (place == one)).to(tl.int32), 0) > 0:
                number = begin + one
                keep_best(
                    tl.sum(tl.where(place[:, None] == one, scores, 0.0), 0),
                    tl.load(row_ptr + number),
                    tl.load(length_ptr + number),
                    indices_ptr + tl.load(start_ptr + number),
                    BLOCKS,
                )


@triton.jit(do_not_specialize=["first_entry", "blocks"], do_not_specialize_on_alignment=SLICED)
def line_lists_kernel(
    columns_ptr,
    diagonals_ptr,
    first_entry,
    entry_ptr,
    row_ptr,
    length_ptr,
    start_ptr,
    indices_ptr,
    blocks,
    BLOCKS: tl.constexpr,
):
    """One list by its entry's block columns and block diagonals."""
    number = tl.program_id(0)
    start = tl.load(start_ptr + number)
    if start >= 0:
        row = tl.load(row_ptr + number)
        lines = (tl.load(entry_ptr + number) - first_entry).to(tl.int64) * blocks
        block = tl.arange(0, BLOCKS)
        causal = block <= row
        scores = tl.load(columns_ptr + lines + block, mask=causal, other=0.0)
        scores += tl.load(diagonals_ptr + lines + row - block, mask=causal, other=0.0)
        keep_best(scores, row, tl.load(length_ptr + number), indices_ptr + start, BLOCKS)


@triton.jit(do_not_specialize=["blocks"])
def score_lists_kernel(
    scores_ptr,
    numbers_ptr,
    row_ptr,
    length_ptr,
    start_ptr,
    indices_ptr,
    blocks,
    BLOCKS: tl.constexpr,
):
    """One list by scores in memory."""
    place = tl.program_id(0)
    number = tl.load(numbers_ptr + place)
    if number >= 0:
        row = tl.load(row_ptr + number)
        block = tl.arange(0, BLOCKS)
        at = scores_ptr + place.to(tl.int64) * blocks + block
        scores = tl.load(at, mask=block <= row, other=0.0)
        out_ptr = indices_ptr + tl.load(start_ptr + number)
        keep_best(scores, row, tl.load(length_ptr + number), out_ptr, BLOCKS)
