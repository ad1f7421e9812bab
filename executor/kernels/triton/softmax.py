"""The running softmax of flash attention (Milakov and Gimelshein, arXiv 1805.02867), in base 2.

A state is result [queries, head_dim], not yet divided, total [queries] and largest [queries], the
largest scaled score so far. `scale_log2` is the softmax scale times log2(e): exp2 is what the
hardware has, and one multiply-add scales a score and subtracts the largest.
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl

LOG2_E = 1.4426950408889634


@triton.jit
def absorb(scores, values, scale_log2, result, total, largest):
    """Adds scores [queries, keys] of values [keys, head_dim] to the state; rows may be -inf."""
    raised = tl.maximum(largest, tl.max(scores, 1) * scale_log2)
    anchor = tl.where(raised == float("-inf"), 0.0, raised)
    weights = tl.math.exp2(tl.fma(scores, scale_log2, -anchor[:, None]))
    shrink = tl.math.exp2(largest - anchor)
    weighted = weights.to(values.dtype)
    result = tl.dot(weighted, values, result * shrink[:, None], input_precision="tf32x3")
    return result, total * shrink + tl.sum(weights, 1), raised


@triton.jit
def finish(result, total, largest):
    """Output [queries, head_dim] and log-sum-exp in base 2 [queries]; 0 and -inf without keys."""
    safe = tl.where(total == 0.0, 1.0, total)
    return result * (1.0 / safe)[:, None], largest + tl.math.log2(safe)
