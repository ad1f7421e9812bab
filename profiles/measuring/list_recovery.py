"""Recovery against budget: of the best lists there are, and of those a selector chooses.

A budget gives every query block so many key pieces, one list for all of its rows. So does the
oracle here: the list that holds most of the sampled rows' attention together.
"""

from collections.abc import Sequence

import torch

from profiles.measuring.choices import Choices
from profiles.measuring.layer_attention import LayerAttention
from profiles.measuring.sampled_rows import SampledRows
from profiles.measuring.selector import Selector
from profiles.selection import NEAREST


def oracle_curve(
    masses: torch.Tensor,
    call: LayerAttention,
    rows: SampledRows,
    choices: Choices,
    budgets: Sequence[int],
) -> torch.Tensor:
    """Recovery of the best lists of each of `budgets` pieces, float64 [heads, points].

    masses as `piece_masses` makes them. A list takes the query block's own pieces, then the local
    ones, the nearest first, then the sink pieces, then the others by their mass. Pieces that a
    sliding window hides from all sampled rows come last.
    """
    size, own = choices.piece, choices.block_pieces
    piece = torch.arange(masses.shape[2], device=masses.device)
    distance = (rows.blocks[:, None] + 1) * own - 1 - piece
    local = max(own, -(-choices.oracle_local_tokens // size))
    sink = -(-choices.oracle_sink_tokens // size)
    # Masses are at most a block's rows: what is always in stands above them, the future below.
    above = float(2 * masses.shape[2] + choices.block_tokens)
    priority = masses.clone()
    priority = torch.where(piece < sink, above - piece, priority)
    nearest = (distance >= 0) & (distance < local)
    priority = torch.where(nearest, 2 * above - distance, priority)
    priority = torch.where(_seen(call, rows, piece, size) & (distance >= 0), priority, -1.0)
    order = priority.argsort(stable=True, dim=2, descending=True)
    recovered = masses.gather(2, order).cumsum(2).sum(1) / len(rows.position)
    last = torch.tensor(budgets, device=masses.device).clamp(max=masses.shape[2]) - 1
    return recovered[:, last].clamp(max=1.0)


def selected_curve(masses: torch.Tensor, lists: torch.Tensor, rows: SampledRows) -> torch.Tensor:
    """Recovery of a selector's `lists` [points, heads, query blocks, pieces], [heads, points]."""
    captured = [masses.masked_fill(~chosen, 0.0).sum((1, 2)) for chosen in lists]
    return (torch.stack(captured, 1) / len(rows.position)).clamp(max=1.0)


def chosen_lists(
    select: Selector,
    call: LayerAttention,
    rows: SampledRows,
    choices: Choices,
    budgets: Sequence[int],
) -> torch.Tensor:
    """What `select` chooses for the sampled query blocks of a layer within each of `budgets`.

    bool [points, heads, query blocks, key pieces]. It knows no windows: in a layer that slides it
    is asked for the nearest pieces, as a kernel for windows would read them. Soft-capping is beyond
    it too, and left out of its scores.
    """
    scale = call.scaling * call.q.shape[2] ** 0.5
    q = call.q if scale == 1.0 else call.q * scale
    selection = NEAREST if call.slides else choices.selection
    lists = select(q, call.k, rows.blocks, choices.block_tokens, choices.piece, selection)
    return torch.stack([lists(budget) for budget in budgets])


def _seen(call: LayerAttention, rows: SampledRows, piece: torch.Tensor, size: int) -> torch.Tensor:
    """Whether any sampled row of a query block may see a key piece, bool [query blocks, pieces]."""
    if call.window is None:
        return torch.ones_like(rows.blocks[:, None] >= piece)
    earliest = torch.full_like(rows.blocks, call.tokens).scatter_reduce(
        0, rows.member, rows.position, "amin"
    )
    return (piece + 1) * size > earliest[:, None] - call.window + 1
