"""Page bounds in Triton: one program per page and group, its tokens read once."""

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
    """Fill bounds [pages, groups, 2, head_dim] for each sequence's pages, or its newest alone."""
    assert cache.pages is not None
    sequences, blocks = cache.pages.shape
    if sequences and blocks:
        page_bounds_kernel[(1 if newest else blocks, sequences, bounds.shape[1])](
            cache.keys,
            cache.pages,
            tokens,
            bounds,
            *cache.keys.stride(),
            *cache.pages.stride(),
            *bounds.stride(),
            NEWEST=newest,
            **tile(cache.keys.shape[2], bounds.shape[3]),
        )


@triton.jit
def _least(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _greatest(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(
    do_not_specialize=["table_sequence", "table_block"],
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
    table_block,
    bound_page,
    bound_group,
    bound_side,
    bound_dim,
    NEWEST: tl.constexpr,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The bounds of one page, if it is a sequence's: of its newest one or of each."""
    sequence = tl.program_id(1)
    group = tl.program_id(2).to(tl.int64)
    tokens = tl.load(tokens_ptr + sequence)
    block = tl.cdiv(tokens, BLOCK) - 1 if NEWEST else tl.program_id(0)
    real = tokens - block * BLOCK
    if (block >= 0) & (real > 0):
        at = table_ptr + sequence.to(tl.int64) * table_sequence + block * table_block
        page = tl.load(at).to(tl.int64)
        dims = tl.arange(0, DIM)
        keys_at = keys_ptr + page * key_page + group * key_group + dims[None, :] * key_dim
        low = tl.full([ROWS, DIM], float("inf"), tl.float32)
        high = tl.full([ROWS, DIM], float("-inf"), tl.float32)
        for begin in range(0, BLOCK, ROWS):
            token = begin + tl.arange(0, ROWS)
            # The first token is always real, and once more it changes neither bound.
            token = tl.where(token < real, token, 0).to(tl.int64)
            keys = tl.load(keys_at + token[:, None] * key_token).to(tl.float32)
            low, high = _least(low, keys), _greatest(high, keys)
        out = bounds_ptr + page * bound_page + group * bound_group + dims * bound_dim
        kind = bounds_ptr.dtype.element_ty
        tl.store(out, tl.reduce(low, 0, _least).to(kind))
        tl.store(out + bound_side, tl.reduce(high, 0, _greatest).to(kind))
