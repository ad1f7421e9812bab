"""Attention and selection as Triton kernels; `executor.kernels.torch` has the same names."""

from executor.kernels.triton.bounds import fill_page_bounds
from executor.kernels.triton.decode import decode_attention
from executor.kernels.triton.means import key_means, query_means
from executor.kernels.triton.prefill import prefill_attention
from executor.kernels.triton.scores import piece_lse
from executor.kernels.triton.select import fill_lists
from executor.kernels.triton.select_decode import decode_lists

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
