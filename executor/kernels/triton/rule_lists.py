"""Lists that follow from a rule, in Triton: nothing is scored."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.layout import Layout
from executor.kernels.patterns import Rule
from executor.kernels.triton.arguments import lists_of


def rule_lists(rule: Rule, layout: Layout, first: int, last: int, indices: torch.Tensor) -> None:
    """Fill the stored ones of lists [first, last) by `rule`."""
    if first < last:
        rule_lists_kernel[(last - first,)](
            lists_of(layout, indices),
            first,
            *rule.within(layout.per_block),
            PER_BLOCK=layout.per_block,
            PIECE=layout.piece_tokens,
            STEP=128,
        )


@triton.jit
def last_piece(entries_ptr, entry, query_block, PER_BLOCK: tl.constexpr, PIECE: tl.constexpr):
    """The last own piece of query block `query_block` of `entry`, as `Layout.own_pieces` says."""
    pieces = tl.cdiv(tl.load(entries_ptr + 6 * entry + 5), PIECE)
    return tl.minimum((query_block + 1) * PER_BLOCK, pieces) - 1


@triton.jit
def write_rule(
    last, length, out_ptr, sink_pieces, local_pieces, stride, offset, STEP: tl.constexpr
):
    """Write the `length` pieces of a list that ends with `last`, as `patterns.rule_pieces` says."""
    near = tl.minimum(tl.maximum(length - sink_pieces, local_pieces), last + 1)
    for begin in range(0, length, STEP):
        place = begin + tl.arange(0, STEP)
        distant = place < length - near
        piece = tl.where(distant, offset + place * stride, last - (length - 1 - place))
        tl.store(out_ptr + place, piece, mask=place < length)


@triton.jit(do_not_specialize=["first", "sink_pieces", "local_pieces", "stride", "offset"])
def rule_lists_kernel(
    lists,
    first,
    sink_pieces,
    local_pieces,
    stride,
    offset,
    PER_BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
    STEP: tl.constexpr,
):
    """One list; `lists`: `Lists`."""
    number = first + tl.program_id(0)
    start = tl.load(lists.start + number)
    if start >= 0:
        entry, query_block = tl.load(lists.entry + number), tl.load(lists.query_block + number)
        last = last_piece(lists.entries, entry, query_block, PER_BLOCK, PIECE)
        length, out_ptr = tl.load(lists.length + number), lists.indices + start
        write_rule(last, length, out_ptr, sink_pieces, local_pieces, stride, offset, STEP)
