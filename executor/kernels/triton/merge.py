"""One result out of attention over several parts of a list of keys, by their log-sum-exps.

FlashAttention-2 (arXiv 2307.08691, section 3.1) and Flash-Decoding's second step. Parts are taken
in their order, so that equal inputs give equal bits.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

SLOTS_PER_STEP = 32


def merge(
    partial_out: torch.Tensor,
    partial_lse: torch.Tensor,
    parts: torch.Tensor,
    heads: torch.Tensor,
    tokens: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """Joins the parts of every destination into out and lse, in one launch.

    partial_out fp32 [slots, rows, head_dim], each part normalised on its own and finite;
    partial_lse fp32 [slots, rows], log-sum-exp in base 2 (largest + log2(sum)), -inf where a part
    saw no key. Destination d is made of `parts[d, 1]` slots (int32 [destinations, 2], may be 0)
    from `parts[d, 0]` on. Its row r goes to `out[heads[d, r], tokens[d, r]]` (int32
    [destinations, rows], any strides, so that expanded views do) and nowhere if that head is
    negative. out [heads, tokens, head_dim], lse fp32 [heads, tokens] (natural logarithm); a row
    without keys gives 0 and -inf, other rows stay as they are.
    """
    destinations, rows = heads.shape
    merge_kernel[(destinations, rows)](
        partial_out,
        partial_lse,
        parts,
        heads,
        tokens,
        out,
        lse,
        *heads.stride(),
        *tokens.stride(),
        *out.stride(),
        *lse.stride(),
        DIM=out.shape[2],
        SLOTS=SLOTS_PER_STEP,
        num_warps=4,
    )


@triton.jit(
    do_not_specialize=["heads_destination", "tokens_destination", "tokens_row", "lse_head"],
    do_not_specialize_on_alignment=["tokens_ptr"],
)
def merge_kernel(
    partial_out_ptr,
    partial_lse_ptr,
    parts_ptr,
    heads_ptr,
    tokens_ptr,
    out_ptr,
    lse_ptr,
    heads_destination,
    heads_row,
    tokens_destination,
    tokens_row,
    out_head,
    out_token,
    out_dim,
    lse_head,
    lse_token,
    DIM: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """One row of one destination."""
    destination = tl.program_id(0)
    row = tl.program_id(1)
    head = tl.load(heads_ptr + destination * heads_destination + row * heads_row).to(tl.int64)
    token = tl.load(tokens_ptr + destination * tokens_destination + row * tokens_row).to(tl.int64)
    first = tl.load(parts_ptr + 2 * destination)
    number = tl.load(parts_ptr + 2 * destination + 1)
    number = tl.where(head < 0, 0, number)

    dims = tl.arange(0, DIM)
    # Finite, so that parts without keys (-inf) leave neither it nor the sums NaN.
    largest = tl.full([1], -1e38, tl.float32)
    total = tl.zeros([1], tl.float32)
    result = tl.zeros([DIM], tl.float32)
    for step in range(0, number, SLOTS):
        slot = step + tl.arange(0, SLOTS)
        inside = slot < number
        at = (first + slot).to(tl.int64) * tl.num_programs(1) + row
        part_lse = tl.load(partial_lse_ptr + at, mask=inside, other=float("-inf"))
        part_at = partial_out_ptr + at[:, None] * DIM + dims[None, :]
        part = tl.load(part_at, mask=inside[:, None], other=0.0)
        raised = tl.maximum(largest, tl.max(part_lse, 0))
        weights = tl.math.exp2(part_lse - raised)
        shrink = tl.math.exp2(largest - raised)
        result = result * shrink + tl.sum(part * weights[:, None], 0)
        total = total * shrink + tl.sum(weights, 0)
        largest = raised

    result = result / tl.where(total > 0.0, total, 1.0)
    natural = (largest + tl.log2(total)) * 0.6931471805599453
    if head >= 0:
        out_at = out_ptr + head * out_head + token * out_token + dims * out_dim
        tl.store(out_at, result.to(out_ptr.dtype.element_ty))
        tl.store(lse_ptr + head * lse_head + token * lse_token + tl.arange(0, 1), natural)
