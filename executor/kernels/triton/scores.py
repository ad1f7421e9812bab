"""Log-sum-exp of a few query rows in every piece of keys, in Triton.

A program holds a tile of an entry's rows while a stretch of keys passes by, a tile after another.
The rows of a tile may be of many query blocks, which is how two rows of each fill a tensor core.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.scores import QueryRows
from executor.kernels.triton.means import key_offsets, key_strides, key_table

LOG2_E = 1.4426950408889634


def piece_lse(
    q: torch.Tensor, cache: Cache, rows: QueryRows, piece_tokens: int, pieces: int
) -> torch.Tensor:
    """As torch's."""
    shape = (*rows.position.shape, pieces)
    lse = torch.full(shape, -torch.inf, dtype=torch.float32, device=q.device)
    fill_piece_lse(q, cache, rows, piece_tokens, lse)
    return lse


def fill_piece_lse(
    q: torch.Tensor, cache: Cache, rows: QueryRows, piece_tokens: int, lse: torch.Tensor
) -> None:
    """Fill lse [entries, rows, pieces] up to the piece of every row's position.

    Behind that it is -inf or stays as the memory was found.
    """
    entries, count, pieces = lse.shape
    if lse.numel():
        options = launch_options(count, q.shape[2], q.element_size())
        table = key_table(cache)
        stretches = triton.cdiv(pieces * piece_tokens, options["KEYS"] * options["TILES"])
        piece_lse_kernel[(triton.cdiv(count, options["ROWS"]), stretches, entries)](
            q,
            cache.keys,
            table,
            rows.group,
            rows.sequence,
            rows.head.contiguous(),
            rows.token.contiguous(),
            rows.position.contiguous(),
            lse,
            *q.stride(),
            *key_strides(cache),
            *table.stride(),
            rows.group.stride(0),
            rows.sequence.stride(0),
            count,
            pieces,
            q.shape[2] ** -0.5 * LOG2_E,
            PAGE=cache.page_tokens,
            PIECE=piece_tokens,
            DIM=q.shape[2],
            **options,
        )


def launch_options(rows: int, head_dim: int, item_bytes: int) -> dict[str, int]:
    """A program's rows and keys, and how it is compiled."""
    wide = head_dim * item_bytes <= 256
    tile = min(max(16, triton.next_power_of_2(rows)), 128 if wide else 64)
    return {
        "ROWS": tile,
        "KEYS": 128,
        "TILES": 8,
        "num_warps": 8 if tile == 128 else 4,
        "num_stages": 2 if wide else 1,
    }


@triton.jit(
    do_not_specialize=["table_sequence", "table_page", "rows", "pieces"],
    do_not_specialize_on_alignment=["table_ptr", "sequence_ptr"],
)
def piece_lse_kernel(
    q_ptr,
    keys_ptr,
    table_ptr,
    group_ptr,
    sequence_ptr,
    head_ptr,
    token_ptr,
    position_ptr,
    lse_ptr,
    q_head,
    q_token,
    q_dim,
    key_page,
    key_group,
    key_token,
    key_dim,
    table_sequence,
    table_page,
    group_stride,
    sequence_stride,
    rows,
    pieces,
    scale_log2,
    PAGE: tl.constexpr,
    PIECE: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    TILES: tl.constexpr,
):
    """TILES tiles of KEYS keys against one tile of an entry's rows."""
    PARTS: tl.constexpr = KEYS // PIECE
    entry = tl.program_id(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    position = tl.load(position_ptr + entry * rows + row, mask=inside, other=-1)
    begin = tl.program_id(1) * (KEYS * TILES)
    end = tl.minimum(begin + KEYS * TILES, tl.max(position, 0) + 1)
    if begin < end:
        seeing = position >= 0
        head = tl.load(head_ptr + entry * rows + row, mask=seeing, other=0).to(tl.int64)
        token = tl.load(token_ptr + entry * rows + row, mask=seeing, other=0).to(tl.int64)
        dims = tl.arange(0, DIM)
        q_at = q_ptr + (head * q_head + token * q_token)[:, None] + dims[None, :] * q_dim
        q = tl.load(q_at, mask=seeing[:, None], other=0.0)
        sequence = tl.load(sequence_ptr + entry * sequence_stride)
        group = tl.load(group_ptr + entry * group_stride).to(tl.int64)
        keys_at = keys_ptr + group * key_group + dims[:, None] * key_dim
        out = lse_ptr + (entry.to(tl.int64) * rows + row)[:, None] * pieces
        for first in range(begin, end, KEYS):
            key = first + tl.arange(0, KEYS)
            # What lies behind the last key that a row sees is not read.
            real = tl.minimum(key, end - 1)
            at = key_offsets(
                table_ptr, sequence, real, key_page, key_token, table_sequence, table_page, PAGE
            )
            k = tl.load(keys_at + at[None, :])
            scores = tl.dot(q, k, input_precision="tf32x3")
            scores = tl.where(key[None, :] <= position[:, None], scores, float("-inf"))
            scores = tl.reshape(scores, [ROWS, PARTS, PIECE]) * scale_log2
            largest = tl.max(scores, 2)
            base = tl.where(largest == float("-inf"), 0.0, largest)
            total = tl.sum(tl.math.exp2(scores - base[:, :, None]), 2)
            piece = first // PIECE + tl.arange(0, PARTS)
            mask = inside[:, None] & (piece < pieces)[None, :]
            lse = (base + tl.log2(total)) * 0.6931471805599453
            tl.store(out + piece[None, :], lse, mask=mask)
