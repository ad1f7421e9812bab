"""What a budget does to a head's output: how far the rows of a layer move from dense attention's.

A head adds o W_O to the residual stream, with its own columns of the output projection W_O
("A Mathematical Framework for Transformer Circuits", Elhage et al. 2021). Attention mass says how
much of a softmax a list holds, not what is lost with the rest: a head whose values are alike
everywhere loses nothing with most of its mass, one that copies a word loses all with a little.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from profiles.measuring.layer_attention import LayerAttention, probabilities
from profiles.measuring.sampled_rows import SampledRows


@dataclass(frozen=True, eq=False)
class OutputErrors:
    """Means over the sampled rows, float64 [heads, points].

    output: ||(o_sparse - o_dense) W_O||^2 as a share of the row's squared residual stream, which
    the layer's attention has been added to. gradient: (g . (o_sparse - o_dense))^2, g the loss'
    gradient to the head's output in that row; None where none was given.
    """

    output: torch.Tensor
    gradient: torch.Tensor | None


@torch.no_grad()
def output_errors(
    call: LayerAttention,
    rows: SampledRows,
    stream: torch.Tensor,
    lists: torch.Tensor,
    piece_tokens: int,
    gradient: torch.Tensor | None = None,
) -> OutputErrors:
    """Errors of attention to the pieces that `lists` names, beside attention to all.

    stream [tokens, hidden]: what comes into the layer; lists bool [points, heads, query blocks, key
    pieces]: of every budget; gradient [heads, tokens, head_dim].
    """
    assert call.out_weight is not None
    heads, _, size = call.q.shape
    weight = call.out_weight.float().view(-1, heads, size).transpose(0, 1)
    gram = weight.transpose(1, 2) @ weight
    output = call.q.new_zeros(heads, len(lists), dtype=torch.float64)
    weighted = None if gradient is None else torch.zeros_like(output)
    for member in range(len(rows.blocks)):
        position = rows.position[rows.member == member]
        masses, parts = zip(
            *(_by_piece(call, group, position, piece_tokens) for group in range(call.k.shape[0])),
            strict=True,
        )
        mass, part = torch.cat(masses), torch.cat(parts)
        dense = part.sum(1)
        chosen = lists[:, :, member, : mass.shape[2]].transpose(0, 1).to(mass.dtype)
        kept = (chosen @ part.flatten(2).view(heads, mass.shape[2], -1)).view(
            heads, len(lists), len(position), size
        )
        moved = kept / (chosen @ mass.transpose(1, 2))[..., None] - dense[:, None]
        after = stream[position].float() + torch.einsum("hrd,hod->ro", dense, weight)
        squared = ((moved.flatten(1, 2) @ gram).view_as(moved) * moved).sum(-1)
        output += (squared / after.square().sum(-1)).sum(-1, dtype=torch.float64)
        if weighted is not None and gradient is not None:
            slopes = gradient[:, position].float()
            weighted += (moved * slopes[:, None]).sum(-1).square().sum(-1, dtype=torch.float64)
    count = len(rows.position)
    return OutputErrors(output / count, None if weighted is None else weighted / count)


def _by_piece(
    call: LayerAttention, group: int, position: torch.Tensor, piece_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mass [heads of the group, rows, pieces] and output [heads, pieces, rows, head_dim] by piece.

    Of the pieces that these rows see; masses of a row add up to 1, outputs to the row's own.
    """
    last = int(position.max()) + 1
    pieces = -(-last // piece_tokens)
    missing = pieces * piece_tokens - last
    weights = pad(probabilities(call, group, position, 0, last), (0, missing))
    weights = weights.view(*weights.shape[:2], pieces, piece_tokens)
    values = pad(call.v[group, :last].to(weights.dtype), (0, 0, 0, missing))
    outputs = torch.einsum("hrpk,pkd->hprd", weights, values.view(pieces, piece_tokens, -1))
    return weights.sum(-1), outputs
