"""The plan's attention on a CPU, in the place of vLLM's CPU_ATTN."""

from typing import Any

import torch
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadataBuilder,
)

from executor.engines.vllm.attention import PlanBuilder, PlanImpl
from executor.engines.vllm.serving import planned


class Impl(PlanImpl, CPUAttentionBackendImpl):  # type: ignore[misc]
    """A block holds all its keys and then all its values, as they are.

    The stock layout of keys is packed for its own kernel.
    """

    def halves(self, kv_cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        blocks, heads, block, _ = kv_cache.shape
        keys, values = kv_cache.view(blocks, heads, 2 * block, self.head_size).chunk(2, dim=2)
        return keys, values

    def do_kv_cache_update(
        self,
        layer: Any,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        """Write the new tokens' key and value [tokens, kv_heads, head_size] to their slots."""
        if not self._computes(self._layer(layer)):
            super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
            return
        # Negative slots are nobody's.
        (real,) = (slot_mapping >= 0).nonzero(as_tuple=True)
        slots = slot_mapping[real]
        for half, new in zip(self.halves(kv_cache), (key, value), strict=True):
            half[slots // half.shape[2], :, slots % half.shape[2]] = new[real]


class Builder(PlanBuilder, CPUAttentionMetadataBuilder):  # type: ignore[misc]
    """Stock metadata and a batch's steps."""


class Backend(CPUAttentionBackend):  # type: ignore[misc]
    """CPU_ATTN, whose layers attend by a plan where the model has a map."""

    @staticmethod
    def get_impl_cls() -> type[CPUAttentionBackendImpl]:
        return Impl if planned() else CPUAttentionBackendImpl

    @staticmethod
    def get_builder_cls() -> type[CPUAttentionMetadataBuilder]:
        return Builder
