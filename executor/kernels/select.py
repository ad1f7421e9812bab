"""Which key blocks each query block of each head attends to: fills the lists of a Layout.

Every size follows from the layout, so that nothing waits for the device.
"""

import torch

from executor.kernels.batch import Cache
from executor.kernels.implementation import implementation
from executor.kernels.layout import Layout


def select(
    q: torch.Tensor, cache: Cache, layout: Layout, *, use_triton: bool | None = None
) -> torch.Tensor:
    """The stored lists of `layout`, int32 [layout.stored], for q [heads, new tokens, head_dim].

    By itself Triton is used where q is on a GPU. There head_dim and block_tokens are powers of two.
    """
    indices = torch.empty(layout.stored, dtype=torch.int32, device=q.device)
    if layout.stored:
        by_triton = q.is_cuda if use_triton is None else use_triton
        implementation(by_triton).fill_lists(q, cache, layout, indices)
    return indices
