"""Decode attention over paged KV in Triton: one list of pieces per (sequence, KV group).

Flash-Decoding (split KV, parts merged by log-sum-exp) with the query heads of a group packed into
one tile (GQA), and the lists cut into equal chunks over the multiprocessors (see chunks.py). A tile
is TILE keys, gathered row by row from as many pieces and pages as that takes.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.chip import H100, RESERVED_BYTES, Chip, chip_of
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.triton.arguments import entries_of, partial_of, pool_of, rows_of
from executor.kernels.triton.chunks import PROGRAMS_PER_SM, first_part, programs
from executor.kernels.triton.merge import merge
from executor.kernels.triton.softmax import LOG2_E, absorb, finish

TILE_BYTES = 16384
"""Keys of one step: three buffers of K and of V fit a multiprocessor's shared memory twice."""


def decode_attention(
    q: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    lists: DecodeLists,
    context_tokens: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    sms: int | None = None,
) -> None:
    """Attention of one new token per sequence, q [heads, new tokens, head_dim], over `lists`.

    Writes out, shaped like q, and lse fp32 [heads, new tokens] (natural log-sum-exp of the scaled
    scores) in the (head, token) rows of the layout's entries and leaves the others as they are; an
    entry without blocks gives 0 and -inf. context_tokens int32 [sequences]: keys of each sequence,
    the new one included. The work is cut for `sms` multiprocessors, by default all of the device's.
    The cache is paged; head_dim and piece_tokens are powers of two, at least 16.

    Two launches and no host synchronisation: a captured graph can be replayed with new counts,
    indices, pages and contexts in the same tensors.
    """
    assert cache.pages is not None
    entries, widest = layout.heads.shape
    if not entries:
        return
    head_dim, grid = q.shape[2], programs(q.device, sms)
    partial = partial_of(grid + entries, widest, q)
    parts = q.new_empty(entries, 2, dtype=torch.int32)
    decode_kernel[(grid,)](
        rows_of(q),
        pool_of(cache.keys),
        pool_of(cache.values),
        cache.pages,
        *cache.pages.stride(),
        partial,
        entries_of(layout, lists),
        parts,
        context_tokens,
        entries,
        widest,
        head_dim**-0.5 * LOG2_E,
        PAGE=cache.page_tokens,
        ALIKE=cache.keys.stride() == cache.values.stride(),
        **launch_options(
            layout.piece_tokens, head_dim, q.element_size(), entries, widest, chip_of(q.device)
        ),
    )
    tokens = layout.entries[:, 1:2].expand(-1, widest)
    merge(*partial, parts, layout.heads, tokens, out, lse)


def launch_options(
    piece_tokens: int,
    head_dim: int,
    item_bytes: int,
    entries: int,
    widest: int,
    chip: Chip = H100,
) -> dict[str, int]:
    """Tile shape, warps and pipeline depth."""
    rows, tile = tile_shape(head_dim, item_bytes, widest)
    three = (rows + 6 * tile) * head_dim * item_bytes
    return {
        "ENTRIES": max(16, triton.next_power_of_2(entries)),
        "ROWS": rows,
        "PIECE": piece_tokens,
        "TILE": tile,
        "DIM": head_dim,
        "num_warps": 4,
        # Index, page and keys are each loaded three steps before the next needs them, or two.
        "num_stages": 10 if chip.programs(three, 4) >= PROGRAMS_PER_SM else 7,
    }


def tile_shape(head_dim: int, item_bytes: int, widest: int) -> tuple[int, int]:
    """Query heads and keys of a step."""
    keys = max(16, min(64, TILE_BYTES // (head_dim * item_bytes)))
    return max(16, triton.next_power_of_2(widest)), keys


def fits(head_dim: int, item_bytes: int, widest: int, chip: Chip) -> bool:
    """Whether a program has the shared memory for `widest` query heads of a group, with K and V of
    two steps.

    fp32 is three products of tf32, which keep what the queries' roundings leave of them, too, and a
    Hopper both parts of the weights.
    """
    rows, tile = tile_shape(head_dim, item_bytes, widest)
    operands = 2 if item_bytes > 2 else 1
    held = (operands * rows + 4 * tile) * head_dim * item_bytes
    if chip.tma:
        held += operands * rows * tile * item_bytes
    return held <= chip.program_bytes - RESERVED_BYTES


# Neither a longer context nor another batch may compile anew while others wait for their step.
@triton.jit(
    do_not_specialize=["entries", "widest", "table_sequence", "table_page"],
    do_not_specialize_on_alignment=["context_ptr", "table_ptr"],
)
def decode_kernel(
    q,
    keys,
    values,
    table_ptr,
    table_sequence,
    table_page,
    partial,
    lists,
    parts_ptr,
    context_ptr,
    entries,
    widest,
    scale_log2,
    ENTRIES: tl.constexpr,
    ROWS: tl.constexpr,
    PIECE: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
    DIM: tl.constexpr,
    ALIKE: tl.constexpr,
):
    """The parts of this program's stretch, one after another."""
    entry, begin, left = first_part(lists.count, parts_ptr, entries, ENTRIES, PIECE, TILE)
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    slots = tl.arange(0, TILE)
    while left > 0:
        sequence = tl.load(lists.entries + 3 * entry).to(tl.int64)
        token = tl.load(lists.entries + 3 * entry + 1).to(tl.int64)
        group = tl.load(lists.entries + 3 * entry + 2).to(tl.int64)
        head = tl.load(lists.heads + entry * widest + rows, mask=rows < widest, other=-1)
        # Real keys of the list: its last piece may reach behind the sequence's end.
        count = tl.load(lists.count + entry) * PIECE
        end = tl.minimum(begin + left, (count + TILE - 1) // TILE)
        start = tl.load(lists.start + entry)
        # A list of all pieces has no indices: its places are the pieces.
        listed = tl.where(start >= 0, count, 0)
        first = tl.load(lists.first + entry)
        context = tl.load(context_ptr + sequence)
        pages_at = table_ptr + sequence * table_sequence
        q_at = q.ptr + head.to(tl.int64)[:, None] * q.head + token * q.token
        query = tl.load(q_at + dims[None, :] * q.dim, mask=head[:, None] >= 0, other=0.0)
        keys_at = keys.source + group * keys.group
        values_at = values.source + group * values.group

        largest = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        result = tl.zeros([ROWS, DIM], tl.float32)
        for tile in range(begin, end):
            slot = tile * TILE + slots
            place = first + slot // PIECE
            piece = tl.load(lists.indices + start + place, mask=slot < listed, other=place)
            key = piece * PIECE + slot % PIECE
            seen = (slot < count) & (key < context)
            page = tl.load(pages_at + key // PAGE * table_page, mask=seen, other=0)
            k_row = page.to(tl.int64) * keys.page + key % PAGE * keys.token
            v_row = k_row
            if not ALIKE:
                v_row = page.to(tl.int64) * values.page + key % PAGE * values.token
            k_at = keys_at + k_row[:, None] + dims[None, :] * keys.dim
            k = tl.load(k_at, mask=seen[:, None], other=0.0)
            # What lies behind the end may be NaN, and 0 * NaN would reach the result.
            v_at = values_at + v_row[:, None] + dims[None, :] * values.dim
            v = tl.load(v_at, mask=seen[:, None], other=0.0)
            scores = tl.dot(query, k.T, input_precision="tf32x3")
            scores = tl.where(seen[None, :], scores, float("-inf"))
            result, total, largest = absorb(scores, v, scale_log2, result, total, largest)

        at = (tl.program_id(0) + entry).to(tl.int64) * widest + rows
        result, part_lse = finish(result, total, largest)
        out_at = partial.out + at[:, None] * DIM + dims[None, :]
        tl.store(out_at, result, mask=head[:, None] >= 0)
        tl.store(partial.lse + at, part_lse, mask=head >= 0)
        left -= end - begin
        begin = 0
        entry += 1
