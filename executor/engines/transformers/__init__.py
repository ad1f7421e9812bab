"""Plans on transformers' models: their attention through the executor's kernels.

Importing this makes "hplb" an attention implementation of transformers. A model loaded with
`attn_implementation="hplb"` is dense until a policy is attached to it.
"""

from executor.engines.transformers.interface import register

register()
