"""Dense attention by the same kernels: budgets that cover every context, for any model."""

from executor.attention.shares import MOST_TOKENS
from executor.inference.block_attention import BlockAttention
from executor.inference.policy import Attended, LayerCall
from profiles.selection import POOLED

KEPT_STEPS = 8
"""All layers of a model share a step."""


class DensePolicy:
    """Every head attends to every key. Arguments as `BudgetPolicy`'s."""

    def __init__(self, *, block_tokens: int = 64, backend: str = "auto") -> None:
        self._blocks = BlockAttention(POOLED, block_tokens, block_tokens, backend, 0, KEPT_STEPS)

    def attend(self, call: LayerCall) -> Attended:
        """Attention of one layer's call."""
        return self._blocks.attend(call, (MOST_TOKENS,) * call.q.shape[0])
