"""Top-p sparse attention: per head and query block the fewest key blocks that hold a share p.

What XAttention (arXiv 2503.16428) and FlexPrefill (arXiv 2502.20766) choose while they run, in
plain torch: a peer in quality, not in speed. The first and the query block's own key block are
always in, as in the executor's own selection.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from executor.evaluation.block_masses import (
    ROWS_AT_ONCE,
    Masses,
    per_query_head,
    pooled_masses,
    visible_blocks,
    visible_keys,
)
from executor.inference.policy import Attended, LayerCall
from executor.inference.window import slides, windowed

OCTAVES = 40
BINS_AN_OCTAVE = 100


@dataclass(frozen=True, eq=False)
class TopP:
    """A policy. `beyond` is 1 - p: the mass that may be missed, 0 for every block.

    Layers whose window hides a key are dense within it, as under `BudgetPolicy`.
    """

    beyond: float
    block_tokens: int
    masses: Masses = pooled_masses

    def attend(self, call: LayerCall) -> Attended:
        """Attention of one layer's call."""
        if slides(call):
            return windowed(call, self.block_tokens, self.block_tokens)
        seen = visible_blocks(call, self.block_tokens)
        if self.beyond > 0:
            left = mass_left(call, self.masses(call, self.block_tokens), self.block_tokens)
            kept = left > self.beyond
        else:
            kept = seen.expand(call.q.shape[0], *seen.shape)
        dense = int(seen.sum()) * call.q.shape[0]
        return Attended(attend_to(call, kept, self.block_tokens), int(kept.sum()), dense)


def mass_left(call: LayerCall, masses: Tensor, block_tokens: int) -> Tensor:
    """What a block and all that are taken after it hold, [query_heads, query blocks, key blocks].

    Blocks are taken by falling mass, those that are always in before all others. A block belongs to
    the fewest that reach p just where this is above 1 - p. It is inf for a block that is always in
    and -inf for one that is not seen.
    """
    seen = visible_blocks(call, block_tokens)
    key = torch.arange(seen.shape[1], device=seen.device)
    own = key[call.cached // block_tokens :, None]
    always = seen & ((key == own) | (key == 0))
    order = masses.masked_fill(always, torch.inf).argsort(dim=-1, descending=True, stable=True)
    # Summed from the least mass up: what is left is exact where it is small.
    falling = masses.gather(-1, order)
    left = falling.flip(-1).cumsum(dim=-1, dtype=torch.float64).flip(-1)
    left = torch.empty_like(left).scatter_(-1, order, left)
    return left.masked_fill(always, torch.inf).masked_fill(~seen, -torch.inf)


def attend_to(call: LayerCall, kept: Tensor, block_tokens: int) -> Tensor:
    """Softmax attention over the kept blocks [query_heads, query blocks, key blocks] alone."""
    keys, values = per_query_head(call, call.keys), per_query_head(call, call.values)
    out = torch.empty_like(call.q)
    for first in range(0, call.q.shape[1], ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, call.q.shape[1])
        seen = visible_keys(call, first, last)
        allowed = _by_token(call, kept, block_tokens, first, last).logical_and_(seen)
        out[:, first:last] = scaled_dot_product_attention(
            call.q[None, :, first:last],
            keys[None, :, : seen.shape[1]],
            values[None, :, : seen.shape[1]],
            attn_mask=allowed[None],
            scale=call.scaling,
        )[0]
    return out


def _by_token(call: LayerCall, kept: Tensor, block_tokens: int, first: int, last: int) -> Tensor:
    """Kept blocks as tokens: [query_heads, new rows first..last, keys up to the last row's own]."""
    begin, end, keys = call.cached + first, call.cached + last, call.cached + last
    own = call.cached // block_tokens
    rows = slice(begin // block_tokens, -(-end // block_tokens))
    blocks = kept[:, rows.start - own : rows.stop - own, : -(-keys // block_tokens)]
    heads, tall, wide = blocks.shape
    tokens = blocks[:, :, None, :, None].expand(heads, tall, block_tokens, wide, block_tokens)
    skipped = begin - rows.start * block_tokens
    whole = tokens.reshape(heads, tall * block_tokens, wide * block_tokens)
    return whole[:, skipped : skipped + last - first, :keys]


class Watching:
    """A policy that attends to everything and counts what every p would have kept.

    `counts` int64 [layers, heads, bins]: how many blocks had that much `mass_left`, in equal steps
    of its logarithm; `always` [layers, heads] those in whatever p is.
    """

    def __init__(
        self, layers: int, heads: int, block_tokens: int, masses: Masses = pooled_masses
    ) -> None:
        self.counts = torch.zeros(layers, heads, OCTAVES * BINS_AN_OCTAVE, dtype=torch.int64)
        self.always = torch.zeros(layers, heads, dtype=torch.int64)
        self._block_tokens, self._masses = block_tokens, masses

    def attend(self, call: LayerCall) -> Attended:
        """Dense attention of one layer's call, counted."""
        if slides(call):
            return windowed(call, self._block_tokens, self._block_tokens)
        left = mass_left(call, self._masses(call, self._block_tokens), self._block_tokens)
        for head, of_head in enumerate(left):
            finite = of_head[of_head.isfinite()].log2().clamp(min=-OCTAVES)
            bins = ((finite + OCTAVES) * BINS_AN_OCTAVE).long().clamp(0, self.counts.shape[-1] - 1)
            self.counts[call.layer, head] += bins.bincount(minlength=self.counts.shape[-1]).cpu()
            self.always[call.layer, head] += int(of_head.isposinf().sum())
        every = left > -torch.inf
        tiles = int(every.sum())
        return Attended(attend_to(call, every, self._block_tokens), tiles, tiles)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """`beyond` = 1 - p for a density, and the mean share of each head's tiles it keeps."""

    beyond: float
    head_share: Tensor

    @classmethod
    def at(cls, watched: Watching, density: float) -> Self:
        """The largest p by which the watched prompts would have computed at most `density`."""
        # kept[..., k]: blocks with more mass left than the lower edge of bin k.
        kept = watched.counts.flip(-1).cumsum(-1).flip(-1) + watched.always[..., None]
        dense = kept[..., 0]
        if density >= 1:
            return cls(0.0, torch.ones(dense.shape))
        target = int(density * int(dense.sum()))
        fits = kept.sum(dim=(0, 1)) <= target
        # Where even those always in are too many, nothing else is taken.
        first = int(fits.int().argmax()) if bool(fits.any()) else kept.shape[-1]
        shares = kept[..., first] if first < kept.shape[-1] else watched.always
        beyond = 2.0 ** (first / BINS_AN_OCTAVE - OCTAVES)
        # A layer that is dense within its window was not counted.
        return cls(beyond, (shares / dense).nan_to_num(1.0))
