"""Decode's lists in Triton: one launch scores the pieces, a second one chooses in every entry."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from dataclasses import astuple

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.patterns import SinkLocal, Strided, rule, runs
from executor.kernels.triton.rule_lists import write_rule
from executor.kernels.triton.top_pieces import keep_best, launch_options

TILE = 32
"""Pieces scored by one program."""
INPUTS = ["context_ptr", "pages_ptr"]
LARGEST = tl.constexpr(torch.finfo(torch.float32).max)
SLICED = ["entries_ptr", "start_ptr", "budget_ptr", "first_ptr", "count_ptr", "heads_ptr"]
"""Arguments that begin anywhere: to compile for their alignment would stall later steps."""


def decode_lists(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
) -> DecodeLists:
    """As `kernels.select_decode.select_decode`."""
    entries = len(layout.lists)
    indices = torch.empty(layout.stored, dtype=torch.int32, device=q.device)
    # Each aligned for itself: rows of one tensor are not.
    first, count = (torch.empty(entries, dtype=torch.int32, device=q.device) for _ in range(2))
    kinds = [
        e.pattern if isinstance(e.pattern, SinkLocal | Strided) else None for e in layout.lists
    ]
    for kind, begin, end in runs(kinds):
        entry = (layout.entries[begin:], layout.start[begin:], layout.budget[begin:])
        out = (layout.part[begin:], first[begin:], count[begin:], indices, layout.piece_tokens)
        if kind is not None:
            # Without fused multiply-adds, so that shares round as they do on the host.
            rule_kernel[(end - begin,)](
                context_tokens,
                *entry,
                *out,
                *astuple(rule(kind, 1)),
                STEP=128,
                enable_fp_fusion=False,
            )
            continue
        stored = any(e.budget_pieces < layout.most_pieces for e in layout.lists[begin:end])
        widest = layout.heads.shape[1] if stored else 0
        scores = _piece_scores(q, bounds, cache, layout, context_tokens, begin, end, widest)
        choose_kernel[(end - begin,)](
            context_tokens,
            *entry,
            *out,
            scores,
            layout.heads[begin:],
            layout.most_pieces,
            WIDEST=widest,
            enable_fp_fusion=False,
            **launch_options(layout.most_pieces if stored else 1),
        )
    return DecodeLists(first, count, indices)


def _piece_scores(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
    begin: int,
    end: int,
    widest: int,
) -> torch.Tensor:
    """Scaled scores of entries [begin, end), fp32 [entries, widest, most_pieces].

    Only those of real pieces, real heads and stored lists are written.
    """
    assert cache.pages is not None
    shape = (end - begin, widest, layout.most_pieces)
    scores = torch.empty(shape, dtype=torch.float32, device=q.device)
    if scores.numel():
        piece_scores_kernel[(triton.cdiv(layout.most_pieces, TILE), end - begin)](
            q,
            bounds,
            cache.pages,
            context_tokens,
            layout.entries[begin:],
            layout.start[begin:],
            layout.heads[begin:],
            scores,
            *q.stride(),
            *bounds.stride(),
            *cache.pages.stride(),
            layout.piece_tokens,
            layout.most_pieces,
            q.shape[2] ** -0.5,
            WIDEST=widest,
            DIM=q.shape[2],
            PER_PAGE=cache.page_tokens // layout.piece_tokens,
            TILE=TILE,
        )
    return scores


@triton.jit(
    do_not_specialize=["pages_sequence", "pages_page", "most_pieces"],
    do_not_specialize_on_alignment=INPUTS + SLICED,
)
def piece_scores_kernel(
    q_ptr,
    bounds_ptr,
    pages_ptr,
    context_ptr,
    entries_ptr,
    start_ptr,
    heads_ptr,
    scores_ptr,
    q_head,
    q_token,
    q_dim,
    bound_row,
    bound_group,
    bound_side,
    bound_dim,
    pages_sequence,
    pages_page,
    piece_tokens,
    most_pieces,
    scale,
    WIDEST: tl.constexpr,
    DIM: tl.constexpr,
    PER_PAGE: tl.constexpr,
    TILE: tl.constexpr,
):
    """One tile of an entry's pieces against all its query heads."""
    entry = tl.program_id(1)
    sequence = tl.load(entries_ptr + 3 * entry).to(tl.int64)
    pieces = tl.cdiv(tl.load(context_ptr + sequence), piece_tokens)
    begin = tl.program_id(0) * TILE
    if (begin < pieces) & (tl.load(start_ptr + entry) >= 0):
        piece = begin + tl.arange(0, TILE)
        real = piece < pieces
        dims = tl.arange(0, DIM)
        pages_at = pages_ptr + sequence * pages_sequence
        page = tl.load(pages_at + piece // PER_PAGE * pages_page, mask=real, other=0)
        row = page.to(tl.int64) * PER_PAGE + piece % PER_PAGE
        at = bounds_ptr + tl.load(entries_ptr + 3 * entry + 2).to(tl.int64) * bound_group
        at += row[:, None] * bound_row + dims[None, :] * bound_dim
        low = tl.load(at, mask=real[:, None], other=0.0).to(tl.float32)
        high = tl.load(at + bound_side, mask=real[:, None], other=0.0).to(tl.float32)
        token = tl.load(entries_ptr + 3 * entry + 1).to(tl.int64) * q_token
        for place in range(WIDEST):
            head = tl.load(heads_ptr + entry * WIDEST + place).to(tl.int64)
            if head >= 0:
                q = tl.load(q_ptr + head * q_head + token + dims * q_dim).to(tl.float32)
                out = scores_ptr + (entry.to(tl.int64) * WIDEST + place) * most_pieces
                # A NaN stays one.
                least, greatest = tl.where(q > 0.0, 0.0, q), tl.where(q < 0.0, 0.0, q)
                terms = low * least[None, :] + high * greatest[None, :]
                score = tl.sum(terms, 1) * scale
                # As on the CPU a NaN is no score and counts as 0, and infinities are finite.
                score = tl.where(score != score, 0.0, tl.clamp(score, -LARGEST, LARGEST))
                tl.store(out + piece, score, mask=real)


@triton.jit
def _write_part(entry, length, part_ptr, first_ptr, count_ptr):
    """Write this device's range of a list of `length` pieces."""
    begin = tl.floor(tl.load(part_ptr + 2 * entry) * length + 0.5).to(tl.int32)
    end = tl.floor(tl.load(part_ptr + 2 * entry + 1) * length + 0.5).to(tl.int32)
    tl.store(first_ptr + entry, begin)
    tl.store(count_ptr + entry, end - begin)


@triton.jit(
    do_not_specialize=["most_pieces"],
    do_not_specialize_on_alignment=INPUTS + SLICED,
)
def choose_kernel(
    context_ptr,
    entries_ptr,
    start_ptr,
    budget_ptr,
    part_ptr,
    first_ptr,
    count_ptr,
    indices_ptr,
    piece_tokens,
    scores_ptr,
    heads_ptr,
    most_pieces,
    WIDEST: tl.constexpr,
    PIECES: tl.constexpr,
):
    """One entry's part, and its list by the sum of its heads' softmaxes."""
    entry = tl.program_id(0)
    pieces = tl.cdiv(tl.load(context_ptr + tl.load(entries_ptr + 3 * entry)), piece_tokens)
    length = tl.minimum(tl.load(budget_ptr + entry), pieces)
    _write_part(entry, length, part_ptr, first_ptr, count_ptr)
    start = tl.load(start_ptr + entry)
    if (WIDEST > 0) & (start >= 0) & (length > 0):
        piece = tl.arange(0, PIECES)
        real = piece < pieces
        joint = tl.zeros([PIECES], tl.float32)
        for place in range(WIDEST):
            if tl.load(heads_ptr + entry * WIDEST + place) >= 0:
                at = scores_ptr + (entry.to(tl.int64) * WIDEST + place) * most_pieces
                scores = tl.load(at + piece, mask=real, other=float("-inf"))
                weights = tl.exp(scores - tl.max(scores, 0))
                joint += weights / tl.sum(weights, 0)
        keep_best(joint, pieces - 1, pieces - 1, length, indices_ptr + start, PIECES)


@triton.jit(
    do_not_specialize=["sink_pieces", "local_pieces", "stride", "offset"],
    do_not_specialize_on_alignment=INPUTS + SLICED,
)
def rule_kernel(
    context_ptr,
    entries_ptr,
    start_ptr,
    budget_ptr,
    part_ptr,
    first_ptr,
    count_ptr,
    indices_ptr,
    piece_tokens,
    sink_pieces,
    local_pieces,
    stride,
    offset,
    STEP: tl.constexpr,
):
    """One entry's part, and its list by a rule: every piece where the layout stores none."""
    entry = tl.program_id(0)
    pieces = tl.cdiv(tl.load(context_ptr + tl.load(entries_ptr + 3 * entry)), piece_tokens)
    start = tl.load(start_ptr + entry)
    length = pieces
    if start >= 0:
        beyond = tl.maximum(pieces - local_pieces - offset, 0)
        own = tl.minimum(pieces, local_pieces) + tl.cdiv(beyond, stride)
        length = tl.minimum(tl.load(budget_ptr + entry), own)
        write_rule(
            pieces - 1,
            length,
            indices_ptr + start,
            sink_pieces,
            local_pieces,
            stride,
            offset,
            STEP,
        )
    _write_part(entry, length, part_ptr, first_ptr, count_ptr)
