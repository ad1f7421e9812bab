"""Lists that follow from a rule, in Triton: nothing is scored."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from dataclasses import astuple

import torch
import triton
import triton.language as tl

from executor.kernels.layout import Layout
from executor.kernels.patterns import Rule


def rule_lists(rule: Rule, layout: Layout, first: int, last: int, indices: torch.Tensor) -> None:
    """Fill the stored ones of lists [first, last) by `rule`."""
    if first < last:
        rule_lists_kernel[(last - first,)](
            layout.query_block[first:],
            layout.length[first:],
            layout.start[first:],
            indices,
            *astuple(rule),
            STEP=128,
        )


@triton.jit
def write_rule(row, length, out_ptr, sink_blocks, local_blocks, stride, offset, STEP: tl.constexpr):
    """Write the `length` blocks of row `row`: as `patterns.rule_blocks` says."""
    near = tl.minimum(tl.maximum(length - sink_blocks, local_blocks), row + 1)
    for begin in range(0, length, STEP):
        place = begin + tl.arange(0, STEP)
        distant = place < length - near
        block = tl.where(distant, offset + place * stride, row - (length - 1 - place))
        tl.store(out_ptr + place, block, mask=place < length)


@triton.jit(
    do_not_specialize=["sink_blocks", "local_blocks", "stride", "offset"],
    do_not_specialize_on_alignment=["row_ptr", "length_ptr", "start_ptr"],
)
def rule_lists_kernel(
    row_ptr,
    length_ptr,
    start_ptr,
    indices_ptr,
    sink_blocks,
    local_blocks,
    stride,
    offset,
    STEP: tl.constexpr,
):
    """One list."""
    number = tl.program_id(0)
    start = tl.load(start_ptr + number)
    if start >= 0:
        write_rule(
            tl.load(row_ptr + number),
            tl.load(length_ptr + number),
            indices_ptr + start,
            sink_blocks,
            local_blocks,
            stride,
            offset,
            STEP,
        )
