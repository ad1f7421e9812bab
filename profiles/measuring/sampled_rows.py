"""Which query rows of a prompt are looked at: a few in each of query blocks spread over it."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

ROWS_A_BLOCK = 8


@dataclass(frozen=True, eq=False)
class SampledRows:
    """Sampled rows of one prompt, all int64.

    position [rows]: row i sees keys 0..i; blocks [query blocks]: the query blocks that were drawn;
    member [rows]: which of `blocks` each row lies in.
    """

    position: torch.Tensor
    blocks: torch.Tensor
    member: torch.Tensor

    def to(self, device: torch.device) -> "SampledRows":
        """The same rows on `device`."""
        return SampledRows(self.position.to(device), self.blocks.to(device), self.member.to(device))


@dataclass(frozen=True, eq=False)
class WeightedRows:
    """Rows, and what each counts in the mean over all rows of the prompt, float64 [rows]."""

    rows: SampledRows
    weight: torch.Tensor


def draw(tokens: int, block_tokens: int, count: int, random: np.random.Generator) -> SampledRows:
    """`count` of the rows 0..tokens - 1, fewer only where the drawn blocks have no more.

    The prompt is cut into as many equal parts as blocks are drawn, one block from each part, so
    that early and late rows are there alike. A list of key pieces serves a whole query block: with
    several rows in each the oracle must serve them together, as the executor's selector must.
    """
    blocks = -(-tokens // block_tokens)
    drawn = min(blocks, -(-count // ROWS_A_BLOCK))
    edges = [part * blocks // drawn for part in range(drawn + 1)]
    chosen = [int(random.integers(low, high)) for low, high in pairwise(edges)]
    positions, members = [], []
    for member, block in enumerate(chosen):
        wanted = count // drawn + (member < count % drawn)
        first, last = block * block_tokens, min(tokens, (block + 1) * block_tokens)
        rows = random.choice(last - first, size=min(wanted, last - first), replace=False)
        positions += sorted(first + int(row) for row in rows)
        members += [member] * len(rows)
    return SampledRows(torch.tensor(positions), torch.tensor(chosen), torch.tensor(members))


def with_predicting(
    rows: SampledRows, predicting: torch.Tensor, tokens: int, block_tokens: int
) -> WeightedRows:
    """Sampled rows, and beside them those that predict an answer, int64, where they are no more.

    In the last layer the loss' gradient reaches no other rows, which a sample would miss. Every
    other sampled row stands for as many as it was drawn from (Horvitz and Thompson, 1952), so that
    the mean over all rows is unbiased.
    """
    few = len(predicting) <= len(rows.position)
    exact = predicting if few else predicting[:0]
    sampled = rows.position[~torch.isin(rows.position, exact)]
    position = torch.cat([exact, sampled])
    weight = torch.ones(len(position), dtype=torch.float64, device=position.device)
    weight[len(exact) :] = tokens / len(rows.position)
    blocks, member = torch.unique(position // block_tokens, return_inverse=True)
    return WeightedRows(SampledRows(position, blocks, member), weight / tokens)
