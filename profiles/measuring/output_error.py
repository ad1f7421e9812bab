"""What a budget does to a head's output: how far the rows of a layer move from dense attention's.

A head adds o W_O to the residual stream, with its own columns of the output projection W_O
("A Mathematical Framework for Transformer Circuits", Elhage et al. 2021). Attention mass says how
much of a softmax a list holds, not what is lost with the rest: a head whose values are alike
everywhere loses nothing with most of its mass, one that copies a word loses all with a little.
"""

from collections.abc import Iterator

import torch
from torch.nn.functional import pad

from profiles.measuring.layer_attention import LayerAttention, logits
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
        # A square of nearly nothing may round below nothing.
        squared = squared.clamp(min=0) / after.square().sum(-1)
        errors += squared.sum(-1, dtype=torch.float64)
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
    everything = lists.new_ones(1, 1, 1)
    for member in range(len(rows.blocks)):
        own = (rows.member == member).nonzero()[:, 0]
        for taken in own.split(ROWS_A_BLOCK):  # type: ignore[no-untyped-call]
            position = rows.position[taken]
            parts = [_by_piece(call, g, position, piece_tokens) for g in range(len(call.k))]
            top, mass, part = (torch.cat(each) for each in zip(*parts, strict=True))
            chosen = lists[:, :, member, : top.shape[2]].transpose(0, 1)
            chosen = torch.cat([everything.expand(len(top), 1, top.shape[2]), chosen], 1)
            # The most of each list counts 1: what a list leaves out makes nothing in it vanish.
            within = top[:, :, None].masked_fill(~chosen[:, None], -torch.inf)
            weight = (within - within.amax(-1, keepdim=True)).exp()
            kept = (weight @ part) / (weight @ mass[..., None])
            out = kept.transpose(1, 2)
            yield taken, out[:, 1:] - out[:, :1], out[:, 0]


def _by_piece(
    call: LayerAttention, group: int, position: torch.Tensor, piece_tokens: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The largest logit of every piece that these rows see, and what it holds by exp(logit - that):
    mass, all [heads of the group, rows, pieces], and values [heads, rows, pieces, head_dim].
    """
    last = int(position.max()) + 1
    pieces = -(-last // piece_tokens)
    missing = pieces * piece_tokens - last
    scores = pad(logits(call, group, position, 0, last), (0, missing), value=-torch.inf)
    scores = scores.view(*scores.shape[:2], pieces, piece_tokens)
    top = scores.amax(-1).clamp(min=torch.finfo(scores.dtype).min)
    weights = (scores - top[..., None]).exp()
    values = pad(call.v[group, :last].to(weights.dtype), (0, 0, 0, missing))
    values = torch.einsum("hrpk,pkd->hrpd", weights, values.view(pieces, piece_tokens, -1))
    return top, weights.sum(-1), values
