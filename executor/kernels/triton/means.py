"""Block means in Triton: one program per block, its tokens read once and summed in fp32."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.layout import Layout, list_range
from executor.kernels.means import KeyBlocks


def key_strides(cache: Cache) -> tuple[int, int, int, int]:
    """Strides of the keys by page (0 where there are none), group, token and dimension."""
    strides = cache.keys.stride()
    return (0, *strides) if cache.pages is None else strides  # type: ignore[return-value]


def key_table(cache: Cache) -> torch.Tensor:
    """Where sequences' keys are: int32 [sequences, blocks] pages, or [sequences, 1] tokens."""
    if cache.pages is not None:
        return cache.pages
    assert cache.starts is not None
    return cache.starts[:, None]


def key_means(cache: Cache, blocks: KeyBlocks, block_tokens: int) -> torch.Tensor:
    """Mean keys, fp32 [groups, blocks, head_dim], neighbouring blocks next to each other."""
    groups = cache.keys.shape[0 if cache.pages is None else 1]
    shape = (groups, cache.keys.shape[-1], len(blocks.sequence))
    means = torch.empty(shape, dtype=torch.float32, device=cache.keys.device).transpose(1, 2)
    table = key_table(cache)
    if len(blocks.sequence):
        key_means_kernel[(len(blocks.sequence), groups)](
            cache.keys,
            table,
            blocks.sequence,
            blocks.start,
            blocks.tokens,
            means,
            *key_strides(cache),
            *table.stride(),
            *means.stride(),
            PAGED=cache.pages is not None,
            **tile(block_tokens, means.shape[2]),
        )
    return means


def tile(block_tokens: int, head_dim: int) -> dict[str, int]:
    """A block's shape, and how many of its tokens are summed at once."""
    return {"BLOCK": block_tokens, "DIM": head_dim, "ROWS": min(block_tokens, 16)}


def query_means(q: torch.Tensor, layout: Layout, first: int, last: int) -> torch.Tensor:
    """As torch's, but for lists that hold every block: their means stay as the memory was found."""
    begin, end = list_range(layout, first, last)
    means = torch.empty(end - begin, q.shape[2], dtype=torch.float32, device=q.device)
    if begin < end:
        query_means_kernel[(end - begin,)](
            q,
            layout.entries,
            layout.entry[begin:],
            layout.query_block[begin:],
            layout.start[begin:],
            means,
            *q.stride(),
            **tile(layout.block_tokens, q.shape[2]),
        )
    return means


@triton.jit
def key_block(
    keys_ptr,
    table_ptr,
    sequence,
    group,
    block,
    key_page,
    key_group,
    key_token,
    table_sequence,
    table_block,
    PAGED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Where key block `block` of `sequence` begins in `group`."""
    table_ptr += sequence.to(tl.int64) * table_sequence
    if PAGED:
        at = tl.load(table_ptr + block * table_block).to(tl.int64) * key_page
    else:
        at = (tl.load(table_ptr).to(tl.int64) + block * BLOCK) * key_token
    return keys_ptr + at + group.to(tl.int64) * key_group


@triton.jit
def _mean(
    block_ptr,
    token_stride,
    dim_stride,
    first,
    last,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Mean of tokens [first, last) of the block at `block_ptr`, fp32 [DIM]."""
    dims = tl.arange(0, DIM)
    total = tl.zeros([ROWS, DIM], tl.float32)
    for begin in range(0, BLOCK, ROWS):
        token = begin + tl.arange(0, ROWS)
        real = (token >= first) & (token < last)
        at = block_ptr + token[:, None].to(tl.int64) * token_stride + dims[None, :] * dim_stride
        total += tl.load(at, mask=real[:, None], other=0.0).to(tl.float32)
    return tl.sum(total, 0) / (last - first)


@triton.jit(
    do_not_specialize=["table_sequence", "table_block", "mean_dim"],
    do_not_specialize_on_alignment=["table_ptr"],
)
def key_means_kernel(
    keys_ptr,
    table_ptr,
    sequence_ptr,
    start_ptr,
    tokens_ptr,
    means_ptr,
    key_page,
    key_group,
    key_token,
    key_dim,
    table_sequence,
    table_block,
    mean_group,
    mean_block,
    mean_dim,
    PAGED: tl.constexpr,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The mean of one key block, written to its place among the computed ones."""
    place = tl.program_id(0)
    group = tl.program_id(1)
    sequence = tl.load(sequence_ptr + place).to(tl.int32)
    block = place - tl.load(start_ptr + sequence)
    real = tl.minimum(tl.load(tokens_ptr + sequence) - block * BLOCK, BLOCK)
    at = key_block(
        keys_ptr,
        table_ptr,
        sequence,
        group,
        block,
        key_page,
        key_group,
        key_token,
        table_sequence,
        table_block,
        PAGED,
        BLOCK,
    )
    mean = _mean(at, key_token, key_dim, 0, real, BLOCK, DIM, ROWS)
    out = means_ptr + place.to(tl.int64) * mean_block + group.to(tl.int64) * mean_group
    tl.store(out + tl.arange(0, DIM) * mean_dim, mean)


@triton.jit(do_not_specialize_on_alignment=["entry_ptr", "row_ptr", "start_ptr"])
def query_means_kernel(
    q_ptr,
    entries_ptr,
    entry_ptr,
    row_ptr,
    start_ptr,
    means_ptr,
    q_head,
    q_token,
    q_dim,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The mean of one list's query block."""
    number = tl.program_id(0)
    if tl.load(start_ptr + number) >= 0:
        table = entries_ptr + 6 * tl.load(entry_ptr + number)
        begin = tl.load(row_ptr + number) * BLOCK
        origin = tl.load(table + 3) + begin
        first = tl.maximum(tl.load(table + 4) - begin, 0)
        last = tl.minimum(tl.load(table + 5) - begin, BLOCK)
        at = q_ptr + tl.load(table).to(tl.int64) * q_head + origin.to(tl.int64) * q_token
        mean = _mean(at, q_token, q_dim, first, last, BLOCK, DIM, ROWS)
        tl.store(means_ptr + number.to(tl.int64) * DIM + tl.arange(0, DIM), mean)
