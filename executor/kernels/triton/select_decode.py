"""Decode's lists in Triton: one launch scores the pieces, a second one chooses in every entry."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.patterns import Rule, runs
from executor.kernels.triton.arguments import Entries, entries_of, rows_of
from executor.kernels.triton.rule_lists import write_rule
from executor.kernels.triton.top_pieces import keep_best, launch_options

TILE = 32
"""Pieces scored by one program."""
INPUTS = ["context_ptr", "pages_ptr"]
"""Arguments of an engine, that may be parts of larger tensors: to compile for their alignment would
stall later steps."""
LARGEST = tl.constexpr(torch.finfo(torch.float32).max)


def decode_lists(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    context_tokens: torch.Tensor,
) -> DecodeLists:
    """As `kernels.select_decode.select_decode`."""
    count = len(layout.lists)
    indices = torch.empty(layout.stored, dtype=torch.int32, device=q.device)
    # Each aligned for itself: rows of one tensor are not.
    first, length = (torch.empty(count, dtype=torch.int32, device=q.device) for _ in range(2))
    lists = DecodeLists(first, length, indices)
    entries = entries_of(layout, lists)
    kinds = [e.pattern if isinstance(e.pattern, Rule) else None for e in layout.lists]
    for rule, begin, end in runs(kinds):
        given = (context_tokens, entries, begin, layout.piece_tokens)
        if rule is not None:
            # Without fused multiply-adds, so that shares round as they do on the host.
            rule_kernel[(end - begin,)](*given, *rule.within(1), STEP=128, enable_fp_fusion=False)
            continue
        stored = any(e.budget_pieces < layout.most_pieces for e in layout.lists[begin:end])
        widest = layout.heads.shape[1] if stored else 0
        scores = _piece_scores(
            q, bounds, cache, layout, entries, context_tokens, begin, end, widest
        )
        best_kernel[(end - begin,)](
            *given,
            scores,
            layout.most_pieces,
            WIDEST=widest,
            enable_fp_fusion=False,
            **launch_options(layout.most_pieces if stored else 1),
        )
    return lists


def _piece_scores(
    q: torch.Tensor,
    bounds: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    entries: Entries,
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
        piece_scores_kernel[(end - begin, triton.cdiv(layout.most_pieces, TILE))](
            rows_of(q),
            bounds,
            cache.pages,
            context_tokens,
            entries,
            begin,
            scores,
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


@triton.jit
def _pieces(context_ptr, entries, entry, piece_tokens):
    """How many pieces the entry's sequence has."""
    return tl.cdiv(tl.load(context_ptr + tl.load(entries.entries + 3 * entry)), piece_tokens)


@triton.jit(
    do_not_specialize=["begin", "pages_sequence", "pages_page", "most_pieces"],
    do_not_specialize_on_alignment=INPUTS,
)
def piece_scores_kernel(
    q,
    bounds_ptr,
    pages_ptr,
    context_ptr,
    entries,
    begin,
    scores_ptr,
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
    """One tile of an entry's pieces against all its query heads; q: `Rows`, entries: `Entries`."""
    entry = begin + tl.program_id(0)
    sequence = tl.load(entries.entries + 3 * entry).to(tl.int64)
    pieces = _pieces(context_ptr, entries, entry, piece_tokens)
    tile = tl.program_id(1) * TILE
    if (tile < pieces) & (tl.load(entries.start + entry) >= 0):
        piece = tile + tl.arange(0, TILE)
        real = piece < pieces
        dims = tl.arange(0, DIM)
        pages_at = pages_ptr + sequence * pages_sequence
        page = tl.load(pages_at + piece // PER_PAGE * pages_page, mask=real, other=0)
        row = page.to(tl.int64) * PER_PAGE + piece % PER_PAGE
        at = bounds_ptr + tl.load(entries.entries + 3 * entry + 2).to(tl.int64) * bound_group
        at += row[:, None] * bound_row + dims[None, :] * bound_dim
        low = tl.load(at, mask=real[:, None], other=0.0).to(tl.float32)
        high = tl.load(at + bound_side, mask=real[:, None], other=0.0).to(tl.float32)
        token = tl.load(entries.entries + 3 * entry + 1).to(tl.int64) * q.token
        for place in range(WIDEST):
            head = tl.load(entries.heads + entry * WIDEST + place).to(tl.int64)
            if head >= 0:
                query = tl.load(q.ptr + head * q.head + token + dims * q.dim).to(tl.float32)
                line = tl.program_id(0).to(tl.int64) * WIDEST + place
                # A NaN stays one.
                least = tl.where(query > 0.0, 0.0, query)
                greatest = tl.where(query < 0.0, 0.0, query)
                terms = low * least[None, :] + high * greatest[None, :]
                score = tl.sum(terms, 1) * scale
                # As on the CPU a NaN is no score and counts as 0, and infinities are finite.
                score = tl.where(score != score, 0.0, tl.clamp(score, -LARGEST, LARGEST))
                tl.store(scores_ptr + line * most_pieces + piece, score, mask=real)


@triton.jit
def _write_part(entries, entry, length):
    """Write this device's range of a list of `length` pieces."""
    begin = tl.floor(tl.load(entries.part + 2 * entry) * length + 0.5).to(tl.int32)
    end = tl.floor(tl.load(entries.part + 2 * entry + 1) * length + 0.5).to(tl.int32)
    tl.store(entries.first + entry, begin)
    tl.store(entries.count + entry, end - begin)


@triton.jit(do_not_specialize=["begin", "most_pieces"], do_not_specialize_on_alignment=INPUTS)
def best_kernel(
    context_ptr,
    entries,
    begin,
    piece_tokens,
    scores_ptr,
    most_pieces,
    WIDEST: tl.constexpr,
    PIECES: tl.constexpr,
):
    """One entry's part, and its list by the sum of its heads' softmaxes; entries: `Entries`."""
    entry = begin + tl.program_id(0)
    pieces = _pieces(context_ptr, entries, entry, piece_tokens)
    length = tl.minimum(tl.load(entries.budget + entry), pieces)
    _write_part(entries, entry, length)
    start = tl.load(entries.start + entry)
    if (WIDEST > 0) & (start >= 0) & (length > 0):
        piece = tl.arange(0, PIECES)
        real = piece < pieces
        joint = tl.zeros([PIECES], tl.float32)
        for place in range(WIDEST):
            if tl.load(entries.heads + entry * WIDEST + place) >= 0:
                line = tl.program_id(0).to(tl.int64) * WIDEST + place
                at = scores_ptr + line * most_pieces + piece
                scores = tl.load(at, mask=real, other=float("-inf"))
                weights = tl.exp(scores - tl.max(scores, 0))
                joint += weights / tl.sum(weights, 0)
        keep_best(joint, pieces - 1, pieces - 1, length, entries.indices + start, PIECES)


@triton.jit(
    do_not_specialize=["begin", "sink_pieces", "local_pieces", "stride", "offset"],
    do_not_specialize_on_alignment=INPUTS,
)
def rule_kernel(
    context_ptr,
    entries,
    begin,
    piece_tokens,
    sink_pieces,
    local_pieces,
    stride,
    offset,
    STEP: tl.constexpr,
):
    """One entry's part, and its list by a rule: every piece where the layout stores none."""
    entry = begin + tl.program_id(0)
    pieces = _pieces(context_ptr, entries, entry, piece_tokens)
    start = tl.load(entries.start + entry)
    length = pieces
    if start >= 0:
        beyond = tl.maximum(pieces - local_pieces - offset, 0)
        own = tl.minimum(pieces, local_pieces) + tl.cdiv(beyond, stride)
        length = tl.minimum(tl.load(entries.budget + entry), own)
        out_ptr = entries.indices + start
        write_rule(pieces - 1, length, out_ptr, sink_pieces, local_pieces, stride, offset, STEP)
    _write_part(entries, entry, length)
