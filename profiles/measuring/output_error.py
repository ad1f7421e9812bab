"""What a budget does to a head's output: how far the rows of a layer move from dense attention's.

A head adds o W_O to the residual stream, with its own columns of the output projection W_O
("A Mathematical Framework for Transformer Circuits", Elhage et al. 2021). Attention mass says how
much of a softmax a list holds, not what is lost with the rest: a head whose values are alike
everywhere loses nothing with most of its mass, one that copies a word loses all with a little.
"""

from collections.abc import Iterator

import torch
from torch.nn.functional import pad

from profiles.measuring.layer_attention import LayerAttention, probabilities
from profiles.measuring.sampled_rows import ROWS_A_BLOCK, SampledRows, WeightedRows


@torch.no_grad()
def output_errors(
    call: LayerAttention,
    rows: SampledRows,
    stream: torch.Tensor,
    lists: torch.Tensor,
    piece_tokens: int,
) -> torch.Tensor:
    """Mean over rows of ||(o_sparse - o_dense) W_O||^2, float64 [heads, points].

    As a share of the row's squared residual stream, which the layer's attention has been added to.
    stream [tokens, hidden]: what comes into the layer; lists bool [points, heads, query blocks, key
    pieces]: what attention of every budget is to.
    """
    assert call.out_weight is not None
    heads, _, size = call.q.shape
    weight = call.out_weight.float().view(-1, heads, size).transpose(0, 1)
    gram = weight.transpose(1, 2) @ weight
    errors = call.q.new_zeros(heads, len(lists), dtype=torch.float64)
    for taken, moved, dense in _moved(call, rows, lists, piece_tokens):
        after = stream[rows.position[taken]].float()
        after = after + torch.einsum("hrd,hod->ro", dense, weight)
        squared = ((moved.flatten(1, 2) @ gram).view_as(moved) * moved).sum(-1)
        errors += (squared / after.square().sum(-1)).sum(-1, dtype=torch.float64)
    return errors / len(rows.position)


@torch.no_grad()
def gradient_errors(
    call: LayerAttention,
    rows: WeightedRows,
    lists: torch.Tensor,
    piece_tokens: int,
    gradient: torch.Tensor,
) -> torch.Tensor:
    """Mean over all rows of (g . (o_sparse - o_dense))^2, float64 [heads, points].

    gradient [heads, tokens, head_dim]: the loss' to the heads' outputs; lists as above.
    """
    errors = call.q.new_zeros(len(call.q), len(lists), dtype=torch.float64)
    for taken, moved, _ in _moved(call, rows.rows, lists, piece_tokens):
        slopes = gradient[:, rows.rows.position[taken]].float()
        along = (moved * slopes[:, None]).sum(-1).square()
        errors += along.double() @ rows.weight[taken]
    return errors


def _moved(
    call: LayerAttention, rows: SampledRows, lists: torch.Tensor, piece_tokens: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """A few rows at a time: which of `rows`, o_sparse - o_dense and o_dense.

    int64 [some], [heads, points, some, head_dim] and [heads, some, head_dim].
    """
    heads, _, size = call.q.shape
    for member in range(len(rows.blocks)):
        own = (rows.member == member).nonzero()[:, 0]
        for taken in own.split(ROWS_A_BLOCK):  # type: ignore[no-untyped-call]
            position = rows.position[taken]
            masses, parts = zip(
                *(_by_piece(call, group, position, piece_tokens) for group in range(len(call.k))),
                strict=True,
            )
            mass, part = torch.cat(masses), torch.cat(parts)
            dense = part.sum(1)
            chosen = lists[:, :, member, : mass.shape[2]].transpose(0, 1).to(mass.dtype)
            kept = (chosen @ part.flatten(2).view(heads, mass.shape[2], -1)).view(
                heads, len(lists), len(taken), size
            )
            yield taken, kept / (chosen @ mass.transpose(1, 2))[..., None] - dense[:, None], dense


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
