"""Block-sparse causal prefill attention in Triton: one program per (head, query block).

Flash attention (arXiv 2307.08691) whose inner loop follows a list of key blocks, with grouped
K/V, one program per list in longest-first order.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.order import longest_first
from executor.kernels.select import BlockLists

LOG2_E = 1.4426950408889634
SHARED_BYTES = 232448
"""Shared memory one program can have on an H100 or H200."""


def prefill(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lists: BlockLists,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """Attention of q [heads, tokens, head_dim] to k, v [groups, tokens, head_dim] over `lists`.

    Writes out [entries, tokens, head_dim] and lse [entries, tokens] (natural log-sum-exp of the
    scaled scores, fp32) in the rows that `lists` computes, and leaves the others as they are.
    head_dim and block are powers of two, at least 16.
    """
    order = longest_first(lists)
    if not len(order):
        return
    entries = [(rows.head, rows.group) for rows in lists.heads]
    # From pinned memory the copy is queued behind the kernels before it instead of waiting.
    heads = torch.tensor(entries, dtype=torch.int32, pin_memory=q.is_cuda)
    prefill_kernel[(len(order),)](
        q,
        k,
        v,
        out,
        lse,
        order,
        heads.to(q.device, non_blocking=True),
        lists.indptr,
        lists.indices,
        *q.stride(),
        *k.stride(),
        *v.stride(),
        *out.stride(),
        lse.stride(0),
        q.shape[1],
        lists.query_blocks,
        q.shape[2] ** -0.5 * LOG2_E,
        **launch_options(lists.block_tokens, q.shape[2], q.element_size()),
    )


def launch_options(block_tokens: int, head_dim: int, item_bytes: int) -> dict[str, int]:
    """Tile shape, warps and pipeline depth: as many stages of K and V as shared memory holds."""
    tile_bytes = block_tokens * head_dim * item_bytes
    stages = max(1, min(3, (SHARED_BYTES - tile_bytes) // (2 * tile_bytes)))
    return {
        "BLOCK": block_tokens,
        "DIM": head_dim,
        "num_warps": 8 if block_tokens > 64 or block_tokens * head_dim > 64 * 128 else 4,
        "num_stages": stages,
    }


@triton.jit
def prefill_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lse_ptr,
    order_ptr,
    heads_ptr,
    indptr_ptr,
    indices_ptr,
    q_head,
    q_token,
    q_dim,
    k_head,
    k_token,
    k_dim,
    v_head,
    v_token,
    v_dim,
    out_head,
    out_token,
    out_dim,
    lse_head,
    tokens,
    query_blocks,
    scale_log2,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
):
    """Output and log-sum-exp of list order[program]."""
    number = tl.load(order_ptr + tl.program_id(0))
    entry = number // query_blocks
    row = number % query_blocks
    head = tl.load(heads_ptr + 2 * entry).to(tl.int64)
    group = tl.load(heads_ptr + 2 * entry + 1).to(tl.int64)
    start = tl.load(indptr_ptr + number)
    # A list ends with the row's own block: alone in needing a mask, it stays out of the loop.
    own = tl.load(indptr_ptr + number + 1) - 1

    dims = tl.arange(0, DIM)
    within = tl.arange(0, BLOCK)
    first = (row * BLOCK).to(tl.int64)
    inside = first + within < tokens
    q_at = q_ptr + head * q_head + first * q_token
    q_at += within[:, None] * q_token + dims[None, :] * q_dim
    q = tl.load(q_at, mask=inside[:, None], other=0.0)
    k_at = k_ptr + group * k_head + within[None, :] * k_token + dims[:, None] * k_dim
    v_at = v_ptr + group * v_head + within[:, None] * v_token + dims[None, :] * v_dim

    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    result = tl.zeros([BLOCK, DIM], tl.float32)
    for position in range(start, own):
        chosen = tl.load(indices_ptr + position).to(tl.int64) * BLOCK
        k = tl.load(k_at + chosen * k_token)
        v = tl.load(v_at + chosen * v_token)
        scores = tl.dot(q, k, input_precision="ieee") * scale_log2
        result, total, largest = _absorb(scores, v, result, total, largest)

    k = tl.load(k_at + first * k_token, mask=inside[None, :], other=0.0)
    v = tl.load(v_at + first * v_token, mask=inside[:, None], other=0.0)
    scores = tl.dot(q, k, input_precision="ieee") * scale_log2
    scores = tl.where(within[None, :] <= within[:, None], scores, float("-inf"))
    result, total, largest = _absorb(scores, v, result, total, largest)

    entry = entry.to(tl.int64)
    out_at = out_ptr + entry * out_head + first * out_token
    out_at += within[:, None] * out_token + dims[None, :] * out_dim
    tl.store(out_at, (result / total[:, None]).to(out_ptr.dtype.element_ty), mask=inside[:, None])
    natural = (largest + tl.log2(total)) / 1.4426950408889634
    tl.store(lse_ptr + entry * lse_head + first + within, natural, mask=inside)


@triton.jit
def _absorb(scores, v, result, total, largest):
    """One step of the running softmax, in base 2: scores [queries, keys], v [keys, head_dim]."""
    raised = tl.maximum(largest, tl.max(scores, 1))
    weights = tl.math.exp2(scores - raised[:, None])
    shrink = tl.math.exp2(largest - raised)
    result = tl.dot(weights.to(v.dtype), v, result * shrink[:, None], input_precision="ieee")
    return result, total * shrink + tl.sum(weights, 1), raised
