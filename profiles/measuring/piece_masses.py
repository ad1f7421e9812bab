"""What sampled query rows give to every key piece, exactly."""

import torch
from torch.nn.functional import pad

from profiles.errors import MeasuringError
from profiles.measuring.layer_attention import LayerAttention, probabilities, row_runs
from profiles.measuring.sampled_rows import SampledRows


@torch.no_grad()
def piece_masses(call: LayerAttention, rows: SampledRows, piece_tokens: int) -> torch.Tensor:
    """Attention mass by key piece, summed over the sampled rows of each query block.

    float64 [heads, query blocks, key pieces]; a query block's masses add up to its number of rows.
    Raises MeasuringError where a row's attention is not finite.
    """
    pieces = -(-call.tokens // piece_tokens)
    masses = call.q.new_zeros((call.q.shape[0], len(rows.blocks), pieces), dtype=torch.float64)
    for group, part in row_runs(call, rows.position):
        found = probabilities(call, group, rows.position[part], 0, call.tokens)
        found = pad(found, (0, pieces * piece_tokens - call.tokens))
        found = found.view(*found.shape[:2], pieces, piece_tokens).sum(-1, dtype=torch.float64)
        masses[call.heads_of(group)].index_add_(
            1, rows.member[part], found / found.sum(-1, keepdim=True)
        )
    bad = ~masses.isfinite().all(2).all(1)
    if bad.any():
        heads = ", ".join(map(str, bad.nonzero().flatten().tolist()))
        raise MeasuringError(
            f"layer {call.layer}, query heads {heads}: attention is not finite: NaN or infinite "
            "weights, or an overflow of the dtype"
        )
    return masses
