"""The plan's attention on a GPU, as vLLM's CUSTOM back end beside FlashAttention.

No GPU has run this. Written to the interfaces of vLLM 0.32.0: FlashAttention writes the cache, its
keys and values side by side, and computes the layers that a plan does not cover.
"""

from typing import Any

from vllm.v1.attention.backend import AttentionCGSupport, MultipleOf
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from executor.checks import TRITON_SIZES
from executor.engines.vllm.attention import PlanBuilder, PlanImpl
from executor.engines.vllm.serving import planned


class Impl(PlanImpl, FlashAttentionImpl):  # type: ignore[misc]
    """FlashAttention's layer, attended by a plan."""


class Builder(PlanBuilder, FlashAttentionMetadataBuilder):  # type: ignore[misc]
    """Stock metadata and a batch's steps, which are laid out anew for every batch: no CUDA graph
    holds attention (graphs of what lies between are captured as ever)."""

    supports_update_block_table = False
    supports_draft_decode_metadata_update = False

    @classmethod
    def get_cudagraph_support(cls, *_: Any, **__: Any) -> AttentionCGSupport:
        return AttentionCGSupport.NEVER


class Backend(FlashAttentionBackend):  # type: ignore[misc]
    """Layers attend by a plan where the model has a map, else by FlashAttention."""

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @classmethod
    def get_supported_kernel_block_sizes(cls, _: Any = None) -> list[int | MultipleOf]:
        """Whole pieces of any size that the kernels take."""
        return [MultipleOf(TRITON_SIZES["piece_tokens"][1])]

    @classmethod
    def get_preferred_block_size(cls, default_block_size: int) -> int:
        return max(default_block_size, TRITON_SIZES["piece_tokens"][1])

    @classmethod
    def supports_mm_prefix(cls) -> bool:
        """Pictures' tokens that see each other are not causal."""
        return False

    @staticmethod
    def get_impl_cls() -> type[FlashAttentionImpl]:
        return Impl if planned() else FlashAttentionImpl

    @staticmethod
    def get_builder_cls() -> type[FlashAttentionMetadataBuilder]:
        return Builder
