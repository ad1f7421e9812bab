"""Bounds of pieces in Triton: one program per piece and group, its tokens read once."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.triton.arguments import pool_of
from executor.kernels.triton.means import tile


def fill_page_bounds(
    cache: Cache, tokens: torch.Tensor, bounds: torch.Tensor, *, newest: bool
) -> None:
    """Fill bounds [rows, groups, 2, head_dim] for each sequence's pieces, or its newest alone."""
    assert cache.pages is not None
    sequences, pages = cache.pages.shape
    if sequences and pages:
        per_page = len(bounds) // len(cache.keys)
        pieces = 1 if newest else pages * per_page
        page_bounds_kernel[(pieces, sequences, bounds.shape[1])](
            pool_of(cache.keys),
            cache.pages,
            tokens,
            bounds,
            *cache.pages.stride(),
            *bounds.stride(),
            NEWEST=newest,
            PER_PAGE=per_page,
            **tile(cache.page_tokens // per_page, bounds.shape[3]),
        )


@triton.jit
def _least(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _greatest(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(
    do_not_specialize=["table_sequence", "table_page"],
    do_not_specialize_on_alignment=["table_ptr", "tokens_ptr"],
)
def page_bounds_kernel(
    keys,
    table_ptr,
    tokens_ptr,
    bounds_ptr,
    table_sequence,
    table_page,
    bound_row,
    bound_group,
    bound_side,
    bound_dim,
    NEWEST: tl.constexpr,
    PER_PAGE: tl.constexpr,
    TOKENS: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The bounds of one piece, if it is a sequence's: its newest one or any; keys: `Pool`."""
    sequence = tl.program_id(1)
    group = tl.program_id(2).to(tl.int64)
    tokens = tl.load(tokens_ptr + sequence)
    piece = tl.cdiv(tokens, TOKENS) - 1 if NEWEST else tl.program_id(0)
    real = tokens - piece * TOKENS
    if (piece >= 0) & (real > 0):
        at = table_ptr + sequence.to(tl.int64) * table_sequence + piece // PER_PAGE * table_page
        page, within = tl.load(at).to(tl.int64), piece % PER_PAGE
        dims = tl.arange(0, DIM)
        keys_at = keys.source + page * keys.page + group * keys.group + dims[None, :] * keys.dim
        low = tl.full([ROWS, DIM], float("inf"), tl.float32)
        high = tl.full([ROWS, DIM], float("-inf"), tl.float32)
        for begin in range(0, TOKENS, ROWS):
            token = begin + tl.arange(0, ROWS)
            # The first token is always real, and once more it changes neither bound.
            token = within * TOKENS + tl.where(token < real, token, 0)
            read = tl.load(keys_at + token[:, None].to(tl.int64) * keys.token).to(tl.float32)
            low, high = _least(low, read), _greatest(high, read)
        row = page * PER_PAGE + within
        out = bounds_ptr + row * bound_row + group * bound_group + dims * bound_dim
        kind = bounds_ptr.dtype.element_ty
        tl.store(out, tl.reduce(low, 0, _least).to(kind))
        tl.store(out + bound_side, tl.reduce(high, 0, _greatest).to(kind))
