"""Attention and selection through torch, for CPUs; `executor.kernels.triton` has the same names."""

from executor.kernels.torch.bounds import fill_page_bounds
from executor.kernels.torch.decode import decode_attention
from executor.kernels.torch.means import key_means, query_means
from executor.kernels.torch.prefill import prefill_attention
from executor.kernels.torch.scores import piece_lse
from executor.kernels.torch.select import fill_lists
from executor.kernels.torch.select_decode import decode_lists

__all__ = [
    "decode_attention",
    "decode_lists",
    "fill_lists",
    "fill_page_bounds",
    "key_means",
    "piece_lse",
    "prefill_attention",
    "query_means",
]
