"""Bounds of pieces in Triton: one program per piece and group, its tokens read once."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
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
            cache.keys,
            cache.pages,
            tokens,
            bounds,
            *cache.keys.stride(),
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
    keys_ptr,
    table_ptr,
    tokens_ptr,
    bounds_ptr,
    key_page,
    key_group,
    key_token,
    key_dim,
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
    """The bounds of one piece, if it is a sequence's: of its newest one or of each."""
    sequence = tl.program_id(1)
    group = tl.program_id(2).to(tl.int64)
    tokens = tl.load(tokens_ptr + sequence)
    piece = tl.cdiv(tokens, TOKENS) - 1 if NEWEST else tl.program_id(0)
    real = tokens - piece * TOKENS
    if (piece >= 0) & (real > 0):
        at = table_ptr + sequence.to(tl.int64) * table_sequence + piece // PER_PAGE * table_page
        page, within = tl.load(at).to(tl.int64), piece % PER_PAGE
        dims = tl.arange(0, DIM)
        keys_at = keys_ptr + page * key_page + group * key_group + dims[None, :] * key_dim
        low = tl.full([ROWS, DIM], float("inf"), tl.float32)
        high = tl.full([ROWS, DIM], float("-inf"), tl.float32)
        for begin in range(0, TOKENS, ROWS):
            token = begin + tl.arange(0, ROWS)
            # The first token is always real, and once more it changes neither bound.
            token = within * TOKENS + tl.where(token < real, token, 0)
            keys = tl.load(keys_at + token[:, None].to(tl.int64) * key_token).to(tl.float32)
            low, high = _least(low, keys), _greatest(high, keys)
        row = page * PER_PAGE + within
        out = bounds_ptr + row * bound_row + group * bound_group + dims * bound_dim
        kind = bounds_ptr.dtype.element_ty
        tl.store(out, tl.reduce(low, 0, _least).to(kind))
        tl.store(out + bound_side, tl.reduce(high, 0, _greatest).to(kind))
