"""A layer's own queries, keys and values: what a model makes of a prompt."""

from dataclasses import dataclass

import torch

from executor.node.shard import LayerShard


@dataclass(frozen=True, eq=False)
class Activations:
    """q [heads, tokens, head_dim]; keys, values [kv_heads, tokens, head_dim], after norms and RoPE.

    Tokens are those of the prompts one after another. `heads` are the model's, or a shard's parts.
    q is scaled so that logits are q k / sqrt(head_dim), whatever the model divides by.
    """

    q: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor

    def of(self, shard: LayerShard, like: torch.Tensor) -> "Activations":
        """The q of a shard's parts, part i its head i, and all K and V; where and as `like` is."""
        mine = self.q[list(shard.heads)]
        return Activations(mine.to(like), self.keys.to(like), self.values.to(like))
