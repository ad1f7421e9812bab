"""The executor's choice of key blocks for a few query blocks, at any budget: for measuring.

`hplb profiles measure` finds `choose` by the entry-point group `hplb.selectors`.
"""

from collections.abc import Callable

import torch

from executor.errors import AttentionError
from executor.kernels.batch import Cache, Chunk
from executor.kernels.implementation import implementation
from executor.kernels.layout import HeadRows, Layout, lay_out
from executor.kernels.means import key_blocks
from executor.kernels.patterns import Sampled, SinkLocal, VerticalSlash, rule, rule_blocks
from executor.kernels.sampled import lists_at_once, sampled_scores
from executor.kernels.torch.means import query_means
from executor.kernels.torch.select import best_blocks, line_scores
from executor.kernels.vertical_slash import entries_at_once, line_masses, scored_size
from profiles import selection
from profiles.selection import Selection


@torch.no_grad()
def choose(
    q: torch.Tensor,
    k: torch.Tensor,
    query_blocks: torch.Tensor,
    block_tokens: int,
    chosen: Selection,
) -> Callable[[int], torch.Tensor]:
    """From a budget in blocks to the lists of `query_blocks`, bool [heads, query blocks, blocks].

    q [heads, tokens, head_dim], k [groups, tokens, head_dim]: one prompt, nothing cached. The lists
    are those that `kernels.select` fills, whose scores do not depend on the budget: they are made
    once. Raises AttentionError for a strided selection: its budget is its own.
    """
    heads, tokens = q.shape[:2]
    blocks = -(-tokens // block_tokens)
    row = query_blocks.to(q.device).repeat(heads)
    block = torch.arange(blocks, device=q.device)
    best: Callable[[torch.Tensor, int], torch.Tensor]
    match chosen:
        case selection.Pooled():
            best = _by_scores(_pooled_scores(q, k, query_blocks, block_tokens), row)
        case selection.VerticalSlash():
            best = _by_scores(_line_scores(q, k, query_blocks, block_tokens), row)
        case selection.Sampled():
            pattern = Sampled(chosen.rows)
            best = _by_scores(_sampled_scores(q, k, query_blocks, block_tokens, pattern), row)
        case selection.SinkLocal():
            best = _by_rule(SinkLocal(-(-chosen.sink_tokens // block_tokens)), row)
        case _:
            raise AttentionError(f"selection: {chosen.kind} chooses by no budget")

    def lists(budget: int) -> torch.Tensor:
        found = block <= row[:, None]
        if budget < blocks:
            cut = row >= budget
            places = best(cut, budget).long()
            found[cut] = torch.zeros_like(found[cut]).scatter_(1, places, True)
        return found.view(heads, -1, blocks)

    return lists


def _by_scores(
    scores: torch.Tensor, row: torch.Tensor
) -> Callable[[torch.Tensor, int], torch.Tensor]:
    return lambda cut, budget: best_blocks(scores[cut], row[cut], budget)


def _by_rule(pattern: SinkLocal, row: torch.Tensor) -> Callable[[torch.Tensor, int], torch.Tensor]:
    def best(cut: torch.Tensor, budget: int) -> torch.Tensor:
        place, kept = torch.arange(budget, device=row.device), row[cut][:, None]
        return rule_blocks(rule(pattern), place, kept, torch.full_like(kept, budget))

    return best


def _layout(q: torch.Tensor, k: torch.Tensor, block_tokens: int) -> tuple[Cache, Layout]:
    """Every head's every query block, of one whole prompt."""
    heads, tokens = q.shape[:2]
    blocks = -(-tokens // block_tokens)
    size = heads // k.shape[0]
    rows = [HeadRows(head, head // size, blocks, 0, blocks) for head in range(heads)]
    cache = Cache(k, k, starts=torch.zeros(1, dtype=torch.int32, device=q.device))
    return cache, lay_out(rows, (Chunk(0, tokens),), block_tokens, q.device)


def _pooled_scores(
    q: torch.Tensor, k: torch.Tensor, query_blocks: torch.Tensor, block_tokens: int
) -> torch.Tensor:
    cache, layout = _layout(q, k, block_tokens)
    keys = implementation(q.is_cuda).key_means(cache, key_blocks(layout), block_tokens)
    # The torch path: Triton leaves out the means of lists that hold every block.
    queries = query_means(q, layout, 0, len(layout.heads))
    queries = queries.view(len(q), -1, q.shape[2])[:, query_blocks.to(q.device)]
    scores: torch.Tensor = queries.reshape(len(k), -1, q.shape[2]) @ keys.transpose(1, 2)
    return scores.flatten(0, 1)


def _line_scores(
    q: torch.Tensor, k: torch.Tensor, query_blocks: torch.Tensor, block_tokens: int
) -> torch.Tensor:
    cache, layout = _layout(q, k, block_tokens)
    row, pattern = query_blocks.to(q.device), VerticalSlash()
    step = entries_at_once(*scored_size(layout, 0, len(q), pattern))
    scores = []
    for begin in range(0, len(q), step):
        end = min(begin + step, len(q))
        lines = line_masses(q, cache, layout, begin, end, pattern, use_triton=q.is_cuda)
        scores += [line_scores(*pair, row) for pair in zip(*lines, strict=True)]
    return torch.cat(scores)


def _sampled_scores(
    q: torch.Tensor,
    k: torch.Tensor,
    query_blocks: torch.Tensor,
    block_tokens: int,
    pattern: Sampled,
) -> torch.Tensor:
    cache, layout = _layout(q, k, block_tokens)
    blocks = layout.heads[0].last
    at_once = lists_at_once(pattern, blocks, block_tokens, use_triton=q.is_cuda)
    scores = []
    for head in range(len(q)):
        for numbers in torch.split(head * blocks + query_blocks.to(q.device), at_once):
            found = sampled_scores(
                q, cache, layout, numbers[None], blocks, pattern, use_triton=q.is_cuda
            )
            scores.append(found[0])
    return torch.cat(scores)
