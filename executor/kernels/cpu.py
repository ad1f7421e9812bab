"""Block-sparse causal prefill attention on the CPU: the selected tiles and nothing else.

Rows with equally long lists go through one batched product, as many as keep their K/V in the
second-level cache; a list longer than that takes several steps with a running softmax
(FlashAttention, arXiv 2205.14135, algorithm 1). K/V blocks are gathered whether or not they are
neighbours, so that a tile costs the same in a dense head as in a sparse one.
"""

from collections.abc import Iterator

import torch
from torch.nn import functional

from executor.kernels.select import BlockLists, HeadRows

GATHERED_BYTES = 2**20
"""K and V of one step: they stay in cache, and the calls of a step cost little beside its work."""


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
    """
    block, dim = lists.block_tokens, q.shape[-1]
    scratch = _Scratch(max(1, GATHERED_BYTES // (2 * block * dim * 4)), block, dim)
    indptr = lists.indptr.tolist()
    queries: dict[int, torch.Tensor] = {}
    keys: dict[int, torch.Tensor] = {}
    values: dict[int, torch.Tensor] = {}
    for entry, rows in enumerate(lists.heads):
        if rows.head not in queries:
            queries[rows.head] = _blocks(q[rows.head], block)
        if rows.group not in keys:
            keys[rows.group] = _blocks(k[rows.group], block)
            values[rows.group] = _blocks(v[rows.group], block)
        for first, last, length in _batches(rows, scratch.tiles):
            start = indptr[entry * lists.query_blocks + first]
            chosen = lists.indices[start : start + (last - first) * length]
            result, row_lse = scratch.attend(
                queries[rows.head][first:last],
                keys[rows.group],
                values[rows.group],
                chosen.view(last - first, length),
            )
            tokens = slice(first * block, min(last * block, q.shape[1]))
            computed = tokens.stop - tokens.start
            out[entry, tokens] = result.flatten(0, 1)[:computed]
            lse[entry, tokens] = row_lse.flatten()[:computed]


def _blocks(x: torch.Tensor, block_tokens: int) -> torch.Tensor:
    """x [tokens, head_dim] as fp32 [blocks, block_tokens, head_dim], zeros after the last token.

    The mask of the diagonal hides those zeros: they come after every real query.
    """
    padding = -x.shape[0] % block_tokens
    padded = functional.pad(x, (0, 0, 0, padding)) if padding else x
    return padded.float().contiguous().view(-1, block_tokens, x.shape[1])


def _batches(rows: HeadRows, tiles: int) -> Iterator[tuple[int, int, int]]:
    """(first row, last row, list length) of runs of rows with equally long lists."""
    first = rows.first
    while first < rows.last:
        length = min(rows.budget_blocks, first + 1)
        last = first + 1
        if length == rows.budget_blocks:
            last = min(rows.last, first + max(1, round(tiles / length)))
        yield first, last, length
        first = last


class _Scratch:
    """Room for one step, allocated once: fresh memory for every step would fault its pages in."""

    def __init__(self, tiles: int, block_tokens: int, head_dim: int) -> None:
        self.tiles = tiles
        # Steps round to the nearest number of tiles: the longest has under half as many more.
        room = tiles + (tiles + 1) // 2
        self.keys = torch.empty(room, block_tokens, head_dim)
        self.values = torch.empty_like(self.keys)
        self.scores = torch.empty(room * block_tokens * block_tokens)
        self.future = torch.ones(block_tokens, block_tokens, dtype=torch.bool).triu_(1)

    def attend(
        self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, chosen: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output and log-sum-exp, [rows, block, head_dim] and [rows, block], of q, shaped like the
        output.

        keys, values [blocks, block, head_dim]; chosen [rows, length] ends in each row's own block.
        """
        rows, block, dim = q.shape
        largest = q.new_full((rows, block, 1), -torch.inf)
        total = q.new_zeros(rows, block, 1)
        out = torch.zeros_like(q)
        steps = chosen.tensor_split(max(1, round(chosen.shape[1] / self.tiles)), dim=1)
        for number, step in enumerate(steps, start=1):
            step_keys = self._gather(keys, step, self.keys)
            step_values = self._gather(values, step, self.values)
            scores = self.scores[: step.numel() * block * block].view(rows, block, -1)
            torch.bmm(q, step_keys.transpose(1, 2), out=scores).mul_(dim**-0.5)
            if number == len(steps):
                scores[..., -block:].masked_fill_(self.future, -torch.inf)
            before, largest = largest, torch.maximum(largest, scores.amax(-1, keepdim=True))
            weights = scores.sub_(largest).exp_()
            shrink = before.sub_(largest).exp_()
            total.mul_(shrink).add_(weights.sum(-1, keepdim=True))
            out.mul_(shrink).baddbmm_(weights, step_values)
        return out.div_(total), total.log_().add_(largest).squeeze(-1)

    @staticmethod
    def _gather(blocks: torch.Tensor, chosen: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
        """The chosen [rows, count] of blocks [blocks, block, head_dim], joined row by row."""
        gathered = room[: chosen.numel()]
        torch.index_select(blocks, 0, chosen.flatten(), out=gathered)
        return gathered.view(chosen.shape[0], -1, blocks.shape[2])
