"""The entry point on the chip: one call for prompts, chunks with a prefix and decodes together."""

from secrets import randbits

import torch

from benchmarks.gpu.oracle import decode_oracle, prefill_oracle, relative_error
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import Shape, Tile, drawn
from executor.attention.block_sparse import attend
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.kernels.batch import Chunk

BUDGETS = (3, 100, 1, 6)
"""Blocks; the second is dense."""


def mixed_step(
    shape: Shape,
    tile: Tile,
    page_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    limit: float,
) -> Row:
    """Sarathi's mixture through `executor.attention.block_sparse.attend`; four budgets in turn."""
    block = tile.block
    chunks = (
        Chunk(0, 9 * block + 5),
        Chunk(11 * block + 3, 1, decodes=True),
        Chunk(4 * block + 7, 3 * block),
        Chunk(8 * block - 1, 1, decodes=True),
    )
    seed = randbits(31)
    tensors = drawn(shape, chunks, device=device, dtype=dtype, page_tokens=page_tokens, seed=seed)
    shares = [
        HeadShare(head, head // shape.group_size, block * BUDGETS[head % 4], sequence=sequence)
        for sequence in range(len(chunks))
        for head in range(shape.query_heads)
    ]
    step = prepare(shares, chunks, block, device, piece_tokens=tile.piece)
    result = attend(tensors.q, tensors.cache, step, "triton", watched_rows=4)
    assert step.prefill is not None
    assert step.decode is not None
    assert result.indices is not None
    assert result.lists is not None
    assert result.recovery is not None
    out, lse = prefill_oracle(tensors.q, tensors.cache, step.prefill, result.indices)
    decoded = decode_oracle(
        tensors.q, tensors.cache, step.decode, result.lists, step.context_tokens
    )
    new = ~decoded[1].isnan()
    out[new], lse[new] = decoded[0][new], decoded[1][new]
    error = relative_error(result.out, out)
    least, most = float(result.recovery.min()), float(result.recovery.max())
    fine = error <= limit and 0 < least <= most <= 1 + limit
    return {
        "relative_error": error,
        "lse_error": relative_error(result.lse, lse),
        "tiles": result.counts.tiles,
        "least_recovery": least,
        "ok": fine,
    }
