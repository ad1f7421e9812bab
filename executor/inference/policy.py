"""What computes a layer's attention in place of a model's own."""

from dataclasses import dataclass
from typing import Protocol

import torch

from executor.inference.room import Sequence
from executor.kernels.layout import Layout


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One sequence's attention in one layer, as the model asks for it.

    q [query_heads, new tokens, head_dim]; keys, values [kv_heads, total tokens, head_dim], the
    cached tokens first. Row i of q is token cached + i, and sees keys 0..cached + i, or only the
    last `window` of them. Logits are q k times `scaling`. `held` is where keys and values lie, if
    that is a room. The sequence is `sequence` of the step's, whose tokens are `lengths`, cached
    ones included; none given, it is alone. `sinks` [query_heads] are logits that take a share of
    every row's attention and give it nothing (gpt-oss).
    """

    layer: int
    q: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    scaling: float
    window: int | None = None
    held: Sequence | None = None
    sequence: int = 0
    lengths: tuple[int, ...] = ()
    sinks: torch.Tensor | None = None

    @property
    def cached(self) -> int:
        return self.keys.shape[1] - self.q.shape[1]

    @property
    def decodes(self) -> bool:
        """Whether it is a single token behind a prefix."""
        return self.q.shape[1] == 1 and self.cached > 0


@dataclass(frozen=True, eq=False)
class Chosen:
    """The lists of a prompt's query blocks: `indices` int32 [stored], as `layout` says."""

    layout: Layout
    indices: torch.Tensor


@dataclass(frozen=True, eq=False)
class Attended:
    """out like q. `tiles` of a block and a piece (pieces, for a single new token) were computed,
    where dense causal attention has `dense_tiles`, over all heads; `recovery` [query_heads] is the
    share of attention mass captured on the rows watched, NaN for none, where it was asked for.
    `chosen`: of a prompt within budgets."""

    out: torch.Tensor
    tiles: int
    dense_tiles: int
    recovery: torch.Tensor | None = None
    chosen: Chosen | None = None


class Policy(Protocol):
    """Which blocks every head of every layer attends to, and the attention over them."""

    def attend(self, call: LayerCall) -> Attended:
        """Attention of one layer's call."""
