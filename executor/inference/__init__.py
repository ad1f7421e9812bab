"""Plans on real models: attention of a transformers model through the executor's kernels.

Importing this makes "hplb" an attention implementation of transformers. A model loaded with
`attn_implementation="hplb"` is dense until a policy is attached to it.
"""

from executor.inference.attach import attach, attached, detach
from executor.inference.budget_policy import BudgetPolicy
from executor.inference.dense_policy import DensePolicy
from executor.inference.interface import NAME, register
from executor.inference.policy import Attended, LayerCall, Policy
from executor.inference.trace import Trace

__all__ = [
    "NAME",
    "Attended",
    "BudgetPolicy",
    "DensePolicy",
    "LayerCall",
    "Policy",
    "Trace",
    "attach",
    "attached",
    "detach",
]

register()
