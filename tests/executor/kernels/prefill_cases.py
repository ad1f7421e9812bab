"""What prefill is tried on, and what it must then be."""

import pytest
import torch

from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadBlocks
from executor.kernels.triton.prefill import prefill_attention
from tests.executor.kernels.reference import (
    prefill_reference,
    relative_error,
)

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}
loads = pytest.mark.parametrize("tma", [False, True], ids=["pointers", "tma"])
caches = pytest.mark.parametrize("paged", [False, True], ids=["contiguous", "paged"])
each = pytest.mark.parametrize(
    ("tma", "paged"), [(False, False), (True, True)], ids=["pointers-contiguous", "tma-paged"]
)


def computed(q, cache, layout, indices, **options):
    """What prefill writes into outputs full of NaN."""
    out = torch.full_like(q, torch.nan)
    lse = torch.full(q.shape[:2], torch.nan)
    prefill_attention(q, cache, layout, indices, out, lse, **options)
    return out, lse


def assert_right(q, cache, layout, indices, **options):
    """That prefill is the definition; what it wrote."""
    out, lse = computed(q, cache, layout, indices, **options)
    wanted, wanted_lse = prefill_reference(q, cache, layout, indices)
    done = wanted_lse.isfinite()
    assert done.any()
    assert out[~done].isnan().all()
    assert lse[~done].isnan().all()
    tolerance = TOLERANCE[q.dtype]
    assert relative_error(out[done], wanted[done]) < tolerance
    assert (lse[done] - wanted_lse[done]).abs().max() < tolerance * wanted_lse[done].abs().max()
    return out, lse


def rows_of(chunk: Chunk, block: int) -> tuple[int, int]:
    """The query blocks of a chunk's new tokens."""
    return chunk.cached_tokens // block, -(-chunk.total_tokens // block)


def skewed_heads(chunks, block, heads, groups):
    """Every head of every sequence with a budget of its own, heavy ones last."""
    return [
        HeadBlocks(h, h * groups // heads, 1 + h + s, *rows_of(chunk, block), sequence=s)
        for s, chunk in enumerate(chunks)
        for h in range(heads)
    ]
