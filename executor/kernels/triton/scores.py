"""What a few query rows give to every piece of keys, in Triton: softmax sums, as wide floats.

A program holds a tile of an entry's rows while a stretch of keys passes by, a tile after another.
The rows of a tile may be of many query blocks, which is how two rows of each fill a tensor core.

A sum is kept as an int32 that orders as sums do, a float with four bits of mantissa turned into
exponent: e = bits >> 19 and m = bits & (2^19 - 1) stand for 2^(e - 127) (1 + m / 2^19). So no sum
of a row overflows beside another one, and neither making nor comparing them takes a logarithm. What
is 2^127 times less than the largest of its row's tile counts as that; OVERFLOW marks what is no
number or beyond 2^BOUND.

By arithmetic, not measured: what two rows of every 64 cost at n tokens, as a share of causal dense
attention in the same head:

- Products: n / 32 rows see n / 2 keys on average, n^2 head_dim / 32 FLOPs of 2 n^2 head_dim: 1.6 %.
  A tile of 128 rows and 64 keys (2.1 MFLOP, 16 KB at head_dim 128) does 128 FLOPs for a byte of L2,
  twice what prefill does at blocks of 64, and takes half of a multiprocessor's registers and less
  of its shared memory: one of two programs multiplies while the other one takes exponentials. Where
  no row ends, each of its 8 warps issues 392 instructions for it (sm_90, Triton 3.6, pieces of 16):
  at 4 a cycle 784 cycles, which bound it to 620 TFLOP/s of an H100 at 1.755 GHz.
- Bytes: pieces of 16 have n^2 / 1024 sums, n^2 / 256 bytes, written once and read once. At
  3.35 TB/s and 600 TFLOP/s of dense attention that is 0.5 % at head_dim 128.
- Choosing by them: 1.1 %, see `top_pieces`.

The eight rows that are the default since a real model's quality asked for them
(benchmarks/real_model) multiply products and bytes by four: 6.2 and 2.0 %.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.chip import GRID_AXIS, H100, RESERVED_BYTES, Chip, chip_of
from executor.kernels.scores import QueryRows
from executor.kernels.triton.arguments import pool_of, rows_of, table_of
from executor.kernels.triton.softmax import LOG2_E

STRETCH = 1024
"""Keys that pass by a program's rows."""
BOUND = tl.constexpr(1900)
"""Scaled scores in base 2 beyond which a row overflows: twice as many, and the bits of a float,
fit into 12 bits of exponent."""
LOWEST = tl.constexpr(-(1900 << 19))
"""Less than any wide float of a piece."""
OVERFLOW = tl.constexpr(2**31 - 1)


def piece_lse(
    q: torch.Tensor, cache: Cache, rows: QueryRows, piece_tokens: int, pieces: int
) -> torch.Tensor:
    """As torch's; neighbouring rows may be further apart than `pieces`."""
    sums = piece_sums(q, cache, rows, piece_tokens, pieces)
    entries, count, width = sums.shape
    lse = sums.view(torch.float32)
    if lse.numel():
        piece_lse_kernel[(entries, count, triton.cdiv(width, 1024))](
            sums, rows.position, lse, *rows.position.stride(), width, PIECE=piece_tokens, STEP=1024
        )
    return lse[..., :pieces]


def piece_sums(
    q: torch.Tensor, cache: Cache, rows: QueryRows, piece_tokens: int, pieces: int
) -> torch.Tensor:
    """Sums of 2^score of every row in every piece, wide floats [entries, rows, pieces + a few].

    Scores are scaled and in base 2. A row's are written up to the piece of its position and the end
    of the four that it belongs to, 0 or nearly so in the future; behind them stands anything.
    """
    entries, count = rows.position.shape
    paged = cache.pages is not None
    options = launch_options(
        count, q.shape[2], q.element_size(), piece_tokens, paged, chip_of(q.device)
    )
    per_tile = options["KEYS"] // piece_tokens
    width = triton.cdiv(pieces, max(4, per_tile)) * max(4, per_tile)
    tiles = width // per_tile
    sums = torch.empty(entries, count, width, dtype=torch.int32, device=q.device)
    table = table_of(cache)
    # The rows of a stretch of keys follow one another, so that they find it in cache: entries are
    # the last axis, which has no room for as many as there may be.
    for begin in range(0, entries if sums.numel() else 0, GRID_AXIS):
        some, every_row = slice(begin, begin + GRID_AXIS), slice(None)
        part, found = rows.part(some, every_row), sums[some]
        tiles_at_once = triton.cdiv(tiles, options["TILES"])
        piece_sums_kernel[(triton.cdiv(count, options["ROWS"]), tiles_at_once, len(found))](
            rows_of(q),
            pool_of(cache.keys),
            table,
            part.group,
            part.sequence,
            part.head,
            part.token,
            part.position,
            found,
            *table.stride(),
            part.group.stride(0),
            part.sequence.stride(0),
            *part.head.stride(),
            *part.token.stride(),
            *part.position.stride(),
            count,
            tiles,
            q.shape[2] ** -0.5 * LOG2_E,
            PAGE=cache.page_tokens,
            PIECE=piece_tokens,
            DIM=q.shape[2],
            **options,
        )
    return sums


def launch_options(
    rows: int,
    head_dim: int,
    item_bytes: int,
    piece_tokens: int,
    paged: bool = True,
    chip: Chip = H100,
) -> dict[str, int]:
    """A program's rows and keys, warps and pipeline depth within a chip's shared memory."""
    row_bytes, fp32 = head_dim * item_bytes, item_bytes == 4
    most = 16 if row_bytes > 512 else 64 if fp32 else 128
    tile = min(most, 16 if rows <= 16 else 64 if rows <= 64 else 128)
    keys = max(piece_tokens, 32 if row_bytes > 512 else 64)
    # Tiles of keys at once: one that is multiplied and two under way, where there is room. Three
    # tf32 products for one of fp32 have both operands' remainders beside them.
    held = (chip.program_bytes - 4 * RESERVED_BYTES) // row_bytes - tile
    ahead = max(1, min(3, (held - fp32 * (tile + keys)) // keys))
    return {
        "ROWS": tile,
        "KEYS": keys,
        "TILES": max(1, STRETCH // keys),
        "num_warps": 8 if tile == 128 else 4,
        # Pages are as many stages ahead of their keys as keys are of their product.
        "num_stages": 2 * ahead - 1 if paged else ahead,
    }


@triton.jit(
    do_not_specialize=[
        "table_sequence",
        "table_page",
        "group_entry",
        "sequence_entry",
        "head_entry",
        "head_row",
        "token_entry",
        "token_row",
        "position_entry",
        "position_row",
        "rows",
        "tiles",
    ],
    do_not_specialize_on_alignment=[
        "table_ptr",
        "group_ptr",
        "sequence_ptr",
        "head_ptr",
        "token_ptr",
        "position_ptr",
    ],
)
def piece_sums_kernel(
    q,
    keys,
    table_ptr,
    group_ptr,
    sequence_ptr,
    head_ptr,
    token_ptr,
    position_ptr,
    sums_ptr,
    table_sequence,
    table_page,
    group_entry,
    sequence_entry,
    head_entry,
    head_row,
    token_entry,
    token_row,
    position_entry,
    position_row,
    rows,
    tiles,
    scale_log2,
    PAGE: tl.constexpr,
    PIECE: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    TILES: tl.constexpr,
):
    """TILES tiles of KEYS keys against one tile of an entry's rows; q: `Rows`, keys: `Pool`."""
    PARTS: tl.constexpr = KEYS // PIECE
    entry = tl.program_id(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    position_at = position_ptr + entry * position_entry + row * position_row
    position = tl.load(position_at, mask=inside, other=-1)
    last = tl.max(position, 0)
    begin = tl.program_id(1) * TILES
    FOURS: tl.constexpr = max(1, 4 // PARTS)
    end = tl.minimum(begin + TILES, tl.cdiv(last + 1, KEYS * FOURS) * FOURS)
    if begin < end:
        seeing = position >= 0
        least = tl.min(tl.where(seeing, position, last), 0)
        head = tl.load(head_ptr + entry * head_entry + row * head_row, mask=seeing, other=0)
        token = tl.load(token_ptr + entry * token_entry + row * token_row, mask=seeing, other=0)
        dims = tl.arange(0, DIM)
        q_row = head.to(tl.int64) * q.head + token.to(tl.int64) * q.token
        q_at = q.ptr + q_row[:, None] + dims[None, :] * q.dim
        query = tl.load(q_at, mask=seeing[:, None], other=0.0)
        sequence = tl.load(sequence_ptr + entry * sequence_entry).to(tl.int64)
        group = tl.load(group_ptr + entry * group_entry).to(tl.int64)
        table_ptr += sequence * table_sequence
        keys_at = keys.source + group * keys.group + dims[None, :] * keys.dim
        if PAGE == 0:
            keys_at += tl.load(table_ptr).to(tl.int64) * keys.token
        slot, part = tl.arange(0, KEYS), tl.arange(0, PARTS)
        out = (entry.to(tl.int64) * rows + row) * tiles
        for tile in range(begin, end):
            key = tile * KEYS + slot
            # Nothing behind the last key that a row sees is read, but what is left of its page.
            real = tl.minimum(key, last)
            if PAGE > 0:
                page = tl.load(table_ptr + real // PAGE * table_page).to(tl.int64)
                at = page * keys.page + key % PAGE * keys.token
            else:
                at = real.to(tl.int64) * keys.token
            k = tl.load(keys_at + at[:, None])
            scores = tl.dot(query, k.T, input_precision="tf32x3")
            if tile * KEYS + KEYS > least:
                scores = tl.where(key[None, :] <= position[:, None], scores, float("-inf"))
            # A whole power of two, so that the sum's own bits and it can be added up.
            base = tl.floor(tl.max(scores, 1) * scale_log2)
            base = tl.minimum(tl.maximum(base, -BOUND), BOUND)
            weights = tl.math.exp2(tl.fma(scores, scale_log2, -base[:, None]))
            total = tl.sum(tl.reshape(weights, [ROWS, PARTS, PIECE]), 2)
            wide = (total.to(tl.int32, bitcast=True) >> 4) + (base.to(tl.int32) << 19)[:, None]
            wide = tl.where(total < float("inf"), wide, OVERFLOW)
            sums_at = sums_ptr + (out + tile)[:, None] * PARTS + part[None, :]
            tl.store(sums_at, wide, mask=inside[:, None])


@triton.jit
def weights_of(wide):
    """Wide floats [...] as parts of the largest one's power of two, fp32, and the largest one."""
    largest = tl.max(wide, 0)
    bits = wide - (((largest >> 19) - 127) << 19)
    return (tl.maximum(bits, 0) << 4).to(tl.float32, bitcast=True), largest


@triton.jit
def add_row(mass, row_ptr, position, PIECE: tl.constexpr, PIECES: tl.constexpr):
    """mass fp32 [PIECES] and the softmax of the row at `position`, whose sums are at `row_ptr`; and
    whether the row counts: one that is none or overflows adds nothing."""
    piece = tl.arange(0, PIECES)
    # Four at once, of which those in the row's future are nothing.
    read = piece // 4 <= position // (4 * PIECE)
    weights, largest = weights_of(tl.load(row_ptr + piece, read, LOWEST))
    counts = (position >= 0) & (largest < OVERFLOW)
    # Not times 0: the weights of a row that does not count may be anything, NaN too.
    if counts:
        mass += weights * (1.0 / tl.sum(weights, 0))
    return mass, counts


@triton.jit(
    do_not_specialize=["position_entry", "position_row", "width"],
    do_not_specialize_on_alignment=["position_ptr"],
)
def piece_lse_kernel(
    sums_ptr,
    position_ptr,
    lse_ptr,
    position_entry,
    position_row,
    width,
    PIECE: tl.constexpr,
    STEP: tl.constexpr,
):
    """STEP natural logarithms of a row's sums, -inf in its future."""
    entry, row = tl.program_id(0), tl.program_id(1)
    position = tl.load(position_ptr + entry * position_entry + row * position_row)
    piece = tl.program_id(2) * STEP + tl.arange(0, STEP)
    at = (entry.to(tl.int64) * tl.num_programs(1) + row) * width + piece
    wide = tl.load(sums_ptr + at, mask=piece < width, other=0)
    mantissa = (((wide & 0x7FFFF) << 4) | 0x3F800000).to(tl.float32, bitcast=True)
    lse = (((wide >> 19) - 127).to(tl.float32) + tl.log2(mantissa)) * 0.6931471805599453
    lse = tl.where(wide == OVERFLOW, float("inf"), lse)
    lse = tl.where(piece * PIECE <= position, lse, float("-inf"))
    tl.store(lse_ptr + at, lse, mask=piece < width)
