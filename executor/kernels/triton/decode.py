"""Decode attention over paged KV in Triton: one list of key blocks per (sequence, KV group).

Flash-Decoding (split KV, pieces merged by log-sum-exp) with the query heads of a group packed into
one tile (GQA), and the lists cut into equal chunks over the multiprocessors (see chunks.py).
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.triton.chunks import first_piece, programs
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
    The cache is paged; head_dim and block_tokens are powers of two, at least 16.

    Two launches and no host synchronisation: a captured graph can be replayed with new counts,
    indices, pages and contexts in the same tensors.
    """
    assert cache.pages is not None
    entries, widest = layout.heads.shape
    if not entries:
        return
    head_dim, grid = q.shape[2], programs(q.device, sms)
    partial_out = q.new_empty(grid + entries, widest, head_dim, dtype=torch.float32)
    partial_lse = q.new_empty(grid + entries, widest, dtype=torch.float32)
    pieces = q.new_empty(entries, 2, dtype=torch.int32)
    decode_kernel[(grid,)](
        q,
        cache.keys,
        cache.values,
        cache.pages,
        partial_out,
        partial_lse,
        pieces,
        lists.count,
        lists.first,
        lists.indices,
        layout.entries,
        layout.heads,
        layout.start,
        context_tokens,
        *q.stride(),
        *cache.keys.stride(),
        *cache.values.stride(),
        *cache.pages.stride(),
        entries,
        widest,
        head_dim**-0.5 * LOG2_E,
        **launch_options(layout.block_tokens, head_dim, q.element_size(), entries, widest),
    )
    tokens = layout.entries[:, 1:2].expand(-1, widest)
    merge(partial_out, partial_lse, pieces, layout.heads, tokens, out, lse)


def launch_options(
    block_tokens: int, head_dim: int, item_bytes: int, entries: int, widest: int
) -> dict[str, int]:
    """Tile shape (a block or a part of one), warps and pipeline depth."""
    return {
        "ENTRIES": max(16, triton.next_power_of_2(entries)),
        "ROWS": max(16, triton.next_power_of_2(widest)),
        "BLOCK": block_tokens,
        "TILE": max(16, min(block_tokens, TILE_BYTES // (head_dim * item_bytes))),
        "DIM": head_dim,
        "num_warps": 4,
        "num_stages": 4,
    }


# Neither a longer context nor another batch may compile anew while others wait for their step.
@triton.jit(
    do_not_specialize=["entries", "widest", "pages_sequence"],
    do_not_specialize_on_alignment=["pages_ptr", "context_ptr"],
)
def decode_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    pages_ptr,
    partial_out_ptr,
    partial_lse_ptr,
    pieces_ptr,
    count_ptr,
    first_ptr,
    indices_ptr,
    entries_ptr,
    heads_ptr,
    start_ptr,
    context_ptr,
    q_head,
    q_token,
    q_dim,
    k_page,
    k_group,
    k_token,
    k_dim,
    v_page,
    v_group,
    v_token,
    v_dim,
    pages_sequence,
    pages_block,
    entries,
    widest,
    scale_log2,
    ENTRIES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    DIM: tl.constexpr,
):
    """The pieces of this program's stretch, one after another."""
    entry, begin, left = first_piece(count_ptr, pieces_ptr, entries, ENTRIES, BLOCK // TILE)
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    keys = tl.arange(0, TILE)
    while left > 0:
        sequence = tl.load(entries_ptr + 3 * entry).to(tl.int64)
        token = tl.load(entries_ptr + 3 * entry + 1).to(tl.int64)
        group = tl.load(entries_ptr + 3 * entry + 2).to(tl.int64)
        head = tl.load(heads_ptr + entry * widest + rows, mask=rows < widest, other=-1)
        end = tl.minimum(begin + left, tl.load(count_ptr + entry) * (BLOCK // TILE))
        start = tl.load(start_ptr + entry)
        first = tl.load(first_ptr + entry)
        context = tl.load(context_ptr + sequence)
        pages_at = pages_ptr + sequence * pages_sequence
        # Before the queries, so that their way to shared memory does not hold up the first keys.
        block, page = _locate(
            begin, end, start, first, indices_ptr, pages_at, pages_block, BLOCK // TILE
        )
        q_at = q_ptr + head.to(tl.int64)[:, None] * q_head + token * q_token
        q = tl.load(q_at + dims[None, :] * q_dim, mask=head[:, None] >= 0, other=0.0)
        k_at = k_ptr + group * k_group + keys[None, :] * k_token + dims[:, None] * k_dim
        v_at = v_ptr + group * v_group + keys[:, None] * v_token + dims[None, :] * v_dim

        largest = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        result = tl.zeros([ROWS, DIM], tl.float32)
        for tile in range(begin, end):
            within = tile % (BLOCK // TILE) * TILE
            seen = block * BLOCK + within + keys < context
            k = tl.load(k_at + (page * k_page + within * k_token))
            # What lies behind the end may be NaN, and 0 * NaN would reach the result.
            v = tl.load(v_at + (page * v_page + within * v_token), mask=seen[:, None], other=0.0)
            # One step ahead, so that no key waits for both its page and its page's index.
            block, page = _locate(
                tile + 1, end, start, first, indices_ptr, pages_at, pages_block, BLOCK // TILE
            )
            scores = tl.dot(q, k, input_precision="tf32x3")
            scores = tl.where(seen[None, :], scores, float("-inf"))
            result, total, largest = absorb(scores, v, scale_log2, result, total, largest, True)

        at = (tl.program_id(0) + entry).to(tl.int64) * widest + rows
        result, piece_lse = finish(result, total, largest)
        out_at = partial_out_ptr + at[:, None] * DIM + dims[None, :]
        tl.store(out_at, result, mask=head[:, None] >= 0)
        tl.store(partial_lse_ptr + at, piece_lse, mask=head >= 0)
        left -= end - begin
        begin = 0
        entry += 1


@triton.jit
def _locate(tile, end, start, first, indices_ptr, pages_at, pages_block, PER_BLOCK: tl.constexpr):
    """Block and page of a tile of the list; nothing of meaning where the list is over."""
    place = first + tile // PER_BLOCK
    # A list of all blocks has a negative start: its places are the blocks.
    block = tl.load(indices_ptr + start + place, mask=(tile < end) & (start >= 0), other=place)
    page = tl.load(pages_at + block * pages_block, mask=tile < end, other=0)
    return block, page.to(tl.int64)
