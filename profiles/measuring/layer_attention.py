"""One layer's causal attention as the model asks for it, a run of rows at a time.

No tensor here has tokens * tokens elements, so that memory grows with the tokens alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

SCORES_AT_ONCE = 2**22
"""The most scores alive at once: 16 MiB in fp32, and as much again for each step of the softmax."""
LEAST_STEP = 256
"""Rows computed together where a window is shorter than that."""


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """One sequence's attention in one layer.

    q [heads, tokens, head_dim]; k, v [groups, tokens, head_dim], behind rotary embedding and norms.
    Logits are q k times `scaling`, squashed to `softcap` * tanh(logits / softcap) where that is
    given (Gemma 2, arXiv 2408.00118). Row i sees keys 0..i, or the last `window` of them.
    out_weight [hidden, heads * head_dim]: the output projection's, where the model has a known one.
    """

    layer: int
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scaling: float
    window: int | None = None
    softcap: float | None = None
    out_weight: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.q.shape[1]

    @property
    def group_size(self) -> int:
        """Query heads that read one KV head."""
        return self.q.shape[0] // self.k.shape[0]

    @property
    def slides(self) -> bool:
        """Whether the window hides any key from any row."""
        return self.window is not None and self.window < self.tokens

    def heads_of(self, group: int) -> slice:
        """The query heads that read KV head `group`."""
        return slice(group * self.group_size, (group + 1) * self.group_size)

    def first_key(self, position: int) -> int:
        """The first key that row `position` sees."""
        return 0 if self.window is None else max(0, position - self.window + 1)


def logits(
    call: LayerAttention, group: int, position: torch.Tensor, first_key: int, last_key: int
) -> torch.Tensor:
    """Logits of the rows `position` [rows] over keys [first_key, last_key), at least in fp32.

    [heads of the group, rows, keys]; -inf where a row does not see a key.
    """
    exact = torch.promote_types(call.q.dtype, torch.float32)
    queries = call.q[call.heads_of(group)][:, position].to(exact)
    scores = queries @ call.k[group, first_key:last_key].to(exact).T * call.scaling
    if call.softcap is not None:
        scores = torch.tanh(scores / call.softcap) * call.softcap
    key = torch.arange(first_key, last_key, device=position.device)
    hidden = key > position[:, None]
    if call.window is not None:
        hidden |= key <= position[:, None] - call.window
    return scores.masked_fill(hidden, -torch.inf)


def probabilities(
    call: LayerAttention, group: int, position: torch.Tensor, first_key: int, last_key: int
) -> torch.Tensor:
    """The softmax of these logits. The keys must hold all that the rows see."""
    return logits(call, group, position, first_key, last_key).softmax(-1)


def row_runs(call: LayerAttention, position: torch.Tensor) -> Iterator[tuple[int, slice]]:
    """(group, rows) that go through `probabilities` together, all keys given."""
    step = max(1, SCORES_AT_ONCE // (call.group_size * call.tokens))
    for group in range(call.k.shape[0]):
        for begin in range(0, len(position), step):
            yield group, slice(begin, min(begin + step, len(position)))


def dense(call: LayerAttention) -> torch.Tensor:
    """The attention's output, like q; differentiable."""
    if not call.slides and call.softcap is None:
        # Expanded rather than with enable_gqa, which some back ends only have with a whole map.
        k, v = (x.repeat_interleave(call.group_size, 0)[None] for x in (call.k, call.v))
        return scaled_dot_product_attention(call.q[None], k, v, is_causal=True, scale=call.scaling)[
            0
        ]
    span = call.tokens if call.window is None else min(call.window, call.tokens)
    least = max(span, LEAST_STEP)
    step = max(1, min(least, SCORES_AT_ONCE // (call.group_size * min(call.tokens, span + least))))
    groups = []
    for group in range(call.k.shape[0]):
        parts = []
        for begin in range(0, call.tokens, step):
            end = min(begin + step, call.tokens)
            first = call.first_key(begin)
            position = torch.arange(begin, end, device=call.q.device)
            weights = probabilities(call, group, position, first, end)
            parts.append(weights.to(call.v.dtype) @ call.v[group, first:end])
        groups.append(torch.cat(parts, 1))
    return torch.cat(groups)
