"""Means of pieces of keys and of query blocks in Triton: a program each, summed once in fp32."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.layout import Layout, list_range
from executor.kernels.means import KeyPieces
from executor.kernels.triton.arguments import pool_of, rows_of, table_of


def key_means(cache: Cache, pieces: KeyPieces, piece_tokens: int) -> torch.Tensor:
    """Mean keys, fp32 [groups, pieces, head_dim], neighbouring pieces next to each other."""
    groups = cache.keys.shape[0 if cache.pages is None else 1]
    shape = (groups, cache.keys.shape[-1], len(pieces.sequence))
    means = torch.empty(shape, dtype=torch.float32, device=cache.keys.device).transpose(1, 2)
    table = table_of(cache)
    if len(pieces.sequence):
        key_means_kernel[(len(pieces.sequence), groups)](
            pool_of(cache.keys),
            table,
            pieces.sequence,
            pieces.start,
            pieces.tokens,
            means,
            *table.stride(),
            *means.stride(),
            PAGE=cache.page_tokens,
            **tile(piece_tokens, means.shape[2]),
        )
    return means


def tile(tokens: int, head_dim: int) -> dict[str, int]:
    """The shape of a piece or block, and how many of its `tokens` are summed at once."""
    return {"TOKENS": tokens, "DIM": head_dim, "ROWS": min(tokens, 16)}


def query_means(q: torch.Tensor, layout: Layout, first: int, last: int) -> torch.Tensor:
    """As torch's, but for lists that hold every piece: their means stay as the memory was found."""
    begin, end = list_range(layout, first, last)
    means = torch.empty(end - begin, q.shape[2], dtype=torch.float32, device=q.device)
    if begin < end:
        query_means_kernel[(end - begin,)](
            rows_of(q),
            layout.entries,
            layout.entry[begin:],
            layout.query_block[begin:],
            layout.start[begin:],
            means,
            **tile(layout.block_tokens, q.shape[2]),
        )
    return means


@triton.jit
def key_offsets(keys, table_ptr, sequence, token, table_sequence, table_page, PAGE: tl.constexpr):
    """Where tokens (any shape) of `sequence` lie in a cache of PAGE tokens a page, 0 without."""
    table_ptr += sequence.to(tl.int64) * table_sequence
    if PAGE > 0:
        page = tl.load(table_ptr + token // PAGE * table_page).to(tl.int64)
        offset = page * keys.page + token % PAGE * keys.token
    else:
        offset = (tl.load(table_ptr).to(tl.int64) + token) * keys.token
    return offset


@triton.jit
def _mean(
    tokens_ptr,
    token_stride,
    dim_stride,
    first,
    last,
    TOKENS: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Mean of tokens [first, last) of the TOKENS at `tokens_ptr`, fp32 [DIM]."""
    dims = tl.arange(0, DIM)
    total = tl.zeros([ROWS, DIM], tl.float32)
    for begin in range(0, TOKENS, ROWS):
        token = begin + tl.arange(0, ROWS)
        real = (token >= first) & (token < last)
        at = tokens_ptr + token[:, None].to(tl.int64) * token_stride + dims[None, :] * dim_stride
        total += tl.load(at, mask=real[:, None], other=0.0).to(tl.float32)
    return tl.sum(total, 0) / (last - first)


@triton.jit(
    do_not_specialize=["table_sequence", "table_page", "mean_dim"],
    do_not_specialize_on_alignment=["table_ptr"],
)
def key_means_kernel(
    keys,
    table_ptr,
    sequence_ptr,
    start_ptr,
    tokens_ptr,
    means_ptr,
    table_sequence,
    table_page,
    mean_group,
    mean_piece,
    mean_dim,
    PAGE: tl.constexpr,
    TOKENS: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The mean of one piece of keys, written to its place among the computed ones; keys: `Pool`."""
    place = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64)
    sequence = tl.load(sequence_ptr + place).to(tl.int32)
    begin = (place - tl.load(start_ptr + sequence)) * TOKENS
    real = tl.minimum(tl.load(tokens_ptr + sequence) - begin, TOKENS)
    at = key_offsets(keys, table_ptr, sequence, begin, table_sequence, table_page, PAGE)
    at = keys.source + at + group * keys.group
    mean = _mean(at, keys.token, keys.dim, 0, real, TOKENS, DIM, ROWS)
    out = means_ptr + place.to(tl.int64) * mean_piece + group * mean_group
    tl.store(out + tl.arange(0, DIM) * mean_dim, mean)


@triton.jit(do_not_specialize_on_alignment=["entry_ptr", "query_block_ptr", "start_ptr"])
def query_means_kernel(
    q,
    entries_ptr,
    entry_ptr,
    query_block_ptr,
    start_ptr,
    means_ptr,
    TOKENS: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The mean of one list's query block; q: `Rows`."""
    number = tl.program_id(0)
    if tl.load(start_ptr + number) >= 0:
        table = entries_ptr + 6 * tl.load(entry_ptr + number)
        begin = tl.load(query_block_ptr + number) * TOKENS
        origin = tl.load(table + 3) + begin
        first = tl.maximum(tl.load(table + 4) - begin, 0)
        last = tl.minimum(tl.load(table + 5) - begin, TOKENS)
        at = q.ptr + tl.load(table).to(tl.int64) * q.head + origin.to(tl.int64) * q.token
        mean = _mean(at, q.token, q.dim, first, last, TOKENS, DIM, ROWS)
        tl.store(means_ptr + number.to(tl.int64) * DIM + tl.arange(0, DIM), mean)
