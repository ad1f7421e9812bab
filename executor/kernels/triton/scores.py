"""Log-sum-exp of a few query rows in every key block, in Triton: one program per block."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.scores import QueryRows
from executor.kernels.triton.means import key_block, key_strides, key_table

LOG2_E = 1.4426950408889634
MOST_ROWS = 64
"""Query rows of one program."""


def block_lse(
    q: torch.Tensor, cache: Cache, rows: QueryRows, block_tokens: int, blocks: int
) -> torch.Tensor:
    """As torch's; neighbouring rows are next to each other in memory."""
    entries, count = rows.position.shape
    lse = torch.empty(entries, blocks, count, dtype=torch.float32, device=q.device)
    if lse.numel():
        tile = max(16, min(MOST_ROWS, triton.next_power_of_2(count)))
        table = key_table(cache)
        block_lse_kernel[(blocks, entries, triton.cdiv(count, tile))](
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
            q.shape[2] ** -0.5 * LOG2_E,
            PAGED=cache.pages is not None,
            BLOCK=block_tokens,
            DIM=q.shape[2],
            ROWS=tile,
            **launch_options(tile, block_tokens),
        )
    return lse.transpose(1, 2)


def launch_options(rows: int, block_tokens: int) -> dict[str, int]:
    """Warps for the tile of scores; there is no loop to pipeline."""
    return {"num_warps": 4 if rows * block_tokens <= 64 * 64 else 8, "num_stages": 1}


@triton.jit(
    do_not_specialize=["table_sequence", "table_block", "rows"],
    do_not_specialize_on_alignment=["table_ptr", "sequence_ptr"],
)
def block_lse_kernel(
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
    table_block,
    group_stride,
    sequence_stride,
    rows,
    scale_log2,
    PAGED: tl.constexpr,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One key block against one tile of an entry's rows."""
    block = tl.program_id(0)
    entry = tl.program_id(1)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    position = tl.load(position_ptr + entry * rows + row, mask=inside, other=-1)
    last = tl.max(position, 0)
    result = tl.full([ROWS], float("-inf"), tl.float32)
    if block * BLOCK <= last:
        seeing = position >= 0
        head = tl.load(head_ptr + entry * rows + row, mask=seeing, other=0).to(tl.int64)
        token = tl.load(token_ptr + entry * rows + row, mask=seeing, other=0).to(tl.int64)
        dims = tl.arange(0, DIM)
        q_at = q_ptr + (head * q_head + token * q_token)[:, None] + dims[None, :] * q_dim
        q = tl.load(q_at, mask=seeing[:, None], other=0.0)
        k_at = key_block(
            keys_ptr,
            table_ptr,
            tl.load(sequence_ptr + entry * sequence_stride),
            tl.load(group_ptr + entry * group_stride),
            block,
            key_page,
            key_group,
            key_token,
            table_sequence,
            table_block,
            PAGED,
            BLOCK,
        )
        within = tl.arange(0, BLOCK)
        key = block * BLOCK + within
        k_at += within[None, :].to(tl.int64) * key_token + dims[:, None] * key_dim
        k = tl.load(k_at, mask=key[None, :] <= last, other=0.0)
        scores = tl.dot(q, k, input_precision="tf32x3") * scale_log2
        scores = tl.where(key[None, :] <= position[:, None], scores, float("-inf"))
        largest = tl.max(scores, 1)
        base = tl.where(largest == float("-inf"), 0.0, largest)
        total = tl.sum(tl.math.exp2(scores - base[:, None]), 1)
        result = (base + tl.log2(total)) / 1.4426950408889634
    at = lse_ptr + (entry.to(tl.int64) * tl.num_programs(0) + block) * rows + row
    tl.store(at, result, mask=inside)
