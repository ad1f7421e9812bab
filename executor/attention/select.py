"""A profile's selection as the kernels carry it out: a plan's heads, and any budget when measuring.

`hplb profiles measure` finds `select_for_budgets` by the entry-point group `hplb.selectors`.
"""

from collections.abc import Callable

import torch

from executor.attention.lists import lay_out
from executor.errors import AttentionError, ShardError
from executor.kernels.batch import Cache, Chunk
from executor.kernels.implementation import implementation
from executor.kernels.layout import HeadBlocks, Layout
from executor.kernels.means import key_pieces
from executor.kernels.patterns import (
    POOLED,
    Pattern,
    Pooled,
    Rule,
    Sampled,
    VerticalSlash,
    rule_pieces,
)
from executor.kernels.sampled import lists_at_once, sampled_scores
from executor.kernels.torch.means import query_means
from executor.kernels.torch.select import best_pieces, line_scores
from executor.kernels.vertical_slash import entries_at_once, line_masses, scored_size
from profiles import selection
from profiles.architecture import Architecture
from profiles.selection import Selection


def pattern(
    selected: Selection, architecture: Architecture, kv_head: int, piece_tokens: int
) -> Pattern:
    """The pattern of the query heads of `kv_head` in pieces of `piece_tokens`.

    A head that attends to all has a budget that covers the context, whatever its pattern. Raises
    ShardError for strided blocks of another size: they would not fall on whole blocks.
    """
    if not isinstance(selected, selection.Strided):
        return _any_heads_pattern(selected, piece_tokens)
    if selected.block_tokens != piece_tokens:
        raise ShardError(
            f"selection: a strided pattern of {selected.block_tokens}-token blocks cannot "
            f"run in pieces of {piece_tokens}: plan with its own block size"
        )
    if selected.dense(kv_head, architecture):
        return POOLED
    offset = selected.offset(kv_head, architecture)
    return Rule.strided(selected.local_blocks, selected.vert_stride, offset)


def _any_heads_pattern(selected: Selection, piece_tokens: int) -> Pattern:
    """The pattern of a selection that is the same in every head, within a head's own budget.

    Raises AttentionError for a strided one.
    """
    match selected:
        case selection.Pooled():
            return POOLED
        case selection.VerticalSlash():
            return VerticalSlash()
        case selection.Sampled():
            return Sampled(selected.rows)
        case selection.SinkLocal():
            return Rule.sink_local(-(-selected.sink_tokens // piece_tokens))
        case selection.Strided():
            raise AttentionError("selection: strided chooses by no budget")


@torch.no_grad()
def select_for_budgets(
    q: torch.Tensor,
    k: torch.Tensor,
    query_blocks: torch.Tensor,
    block_tokens: int,
    piece_tokens: int,
    selected: Selection,
) -> Callable[[int], torch.Tensor]:
    """From a budget in pieces to the lists of `query_blocks`, bool [heads, query blocks, pieces].

    q [heads, tokens, head_dim], k [groups, tokens, head_dim]: one prompt, nothing cached. The lists
    are those that `kernels.select` fills, whose scores do not depend on the budget: they are made
    once. A query block's own pieces are always in its list. Raises AttentionError for a strided
    selection: its budget is its own.
    """
    heads, tokens = q.shape[:2]
    cache, layout = _layout(q, k, block_tokens, piece_tokens)
    pieces, own = layout.grid(0).pieces, layout.per_block
    numbers = torch.arange(heads, device=q.device)[:, None] * (-(-tokens // block_tokens))
    numbers = (numbers + query_blocks.to(q.device)).flatten()
    first, last = layout.own_pieces(numbers)
    piece = torch.arange(pieces, device=q.device)
    best: Callable[[torch.Tensor, int], torch.Tensor]
    match _any_heads_pattern(selected, piece_tokens):
        case Pooled():
            best = _by_scores(_pooled_scores(q, cache, layout, query_blocks), first, last)
        case VerticalSlash() as lines:
            best = _by_scores(_line_scores(q, cache, layout, numbers, lines), first, last)
        case Sampled() as rows:
            best = _by_scores(_sampled_scores(q, cache, layout, query_blocks, rows), first, last)
        case Rule() as rule:
            best = _by_rule(rule, own, last)

    def lists(budget: int) -> torch.Tensor:
        found = piece <= last[:, None]
        kept = max(budget, own)
        cut = last >= kept
        if kept < pieces and bool(cut.any()):
            places = best(cut, kept).long()
            found[cut] = torch.zeros_like(found[cut]).scatter_(1, places, True)
        return found.view(heads, -1, pieces)

    return lists


def _by_scores(
    scores: torch.Tensor, first: torch.Tensor, last: torch.Tensor
) -> Callable[[torch.Tensor, int], torch.Tensor]:
    return lambda cut, kept: best_pieces(scores[cut], first[cut], last[cut], kept)


def _by_rule(
    rule: Rule, own: int, last: torch.Tensor
) -> Callable[[torch.Tensor, int], torch.Tensor]:
    def best(cut: torch.Tensor, kept: int) -> torch.Tensor:
        place, ends = torch.arange(kept, device=last.device), last[cut][:, None]
        return rule_pieces(rule, own, place, ends, torch.full_like(ends, kept))

    return best


def _layout(
    q: torch.Tensor, k: torch.Tensor, block_tokens: int, piece_tokens: int
) -> tuple[Cache, Layout]:
    """Every head's every query block, of one whole prompt."""
    heads, tokens = q.shape[:2]
    blocks, pieces = -(-tokens // block_tokens), -(-tokens // piece_tokens)
    size = heads // k.shape[0]
    rows = [HeadBlocks(head, head // size, pieces, 0, blocks) for head in range(heads)]
    cache = Cache(k, k, starts=torch.zeros(1, dtype=torch.int32, device=q.device))
    chunks = (Chunk(0, tokens),)
    return cache, lay_out(rows, chunks, block_tokens, q.device, piece_tokens=piece_tokens)


def _pooled_scores(
    q: torch.Tensor, cache: Cache, layout: Layout, query_blocks: torch.Tensor
) -> torch.Tensor:
    keys: torch.Tensor = implementation(q.is_cuda).key_means(
        cache, key_pieces(layout), layout.piece_tokens
    )
    # The torch path: Triton leaves out the means of lists that hold every piece.
    queries = query_means(q, layout, 0, len(layout.heads))
    queries = queries.view(len(q), -1, q.shape[2])[:, query_blocks.to(q.device)]
    scores = queries.reshape(len(keys), -1, q.shape[2]) @ keys.transpose(1, 2)
    return scores.flatten(0, 1)


def _line_scores(
    q: torch.Tensor, cache: Cache, layout: Layout, numbers: torch.Tensor, pattern: VerticalSlash
) -> torch.Tensor:
    """Of lists `numbers` [heads x query blocks], fp32 [heads x query blocks, pieces]."""
    own = [x.view(len(q), -1) for x in layout.own_pieces(numbers)]
    piece_lse = implementation(q.is_cuda).piece_lse
    step = entries_at_once(*scored_size(layout, 0, len(q), pattern))
    scores = []
    for begin in range(0, len(q), step):
        end = min(begin + step, len(q))
        lines = line_masses(piece_lse, q, cache, layout, begin, end, pattern)
        of_heads = zip(*lines, *(x[begin:end] for x in own), strict=True)
        scores += [line_scores(*of_head) for of_head in of_heads]
    return torch.cat(scores)


def _sampled_scores(
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    query_blocks: torch.Tensor,
    pattern: Sampled,
) -> torch.Tensor:
    blocks, pieces = layout.heads[0].last, layout.grid(0).pieces
    at_once = lists_at_once(pattern, pieces)
    piece_lse, scores = implementation(q.is_cuda).piece_lse, list[torch.Tensor]()
    for head in range(len(q)):
        for numbers in torch.split(head * blocks + query_blocks.to(q.device), at_once):
            scores += sampled_scores(piece_lse, q, cache, layout, numbers[None], pieces, pattern)
    return torch.cat(scores)
