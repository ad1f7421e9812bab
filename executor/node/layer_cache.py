"""The cache of a layer's K and V: contiguous for whole prompts, pages for decodes."""

from dataclasses import dataclass

import torch

from executor.kernels.batch import Cache
from executor.kernels.bounds import page_bounds, update_page_bounds
from profiles.architecture import Architecture
from profiles.cost.work import Workload


@dataclass(frozen=True, eq=False)
class LayerCache:
    """The cache of `batch_size` sequences of equal length, with its pieces' bounds for decodes."""

    cache: Cache
    bounds: torch.Tensor | None
    workload: Workload

    @staticmethod
    def shape(architecture: Architecture, workload: Workload) -> tuple[int, ...]:
        """keys' and values': [kv_heads, tokens, head_dim], or [pages, kv_heads, block, head_dim]: a
        page is as long as a query block, and holds its pieces."""
        if workload.phase == "prefill":
            tokens = workload.batch_size * workload.context_tokens
            return architecture.kv_heads, tokens, architecture.head_dim
        pages = workload.batch_size * workload.context_blocks
        return pages, architecture.kv_heads, workload.block_tokens, architecture.head_dim

    @classmethod
    def of(cls, keys: torch.Tensor, values: torch.Tensor, workload: Workload) -> "LayerCache":
        """The cache that filled tensors of `shape` make."""
        sequences = torch.arange(workload.batch_size, dtype=torch.int32, device=keys.device)
        if workload.phase == "prefill":
            starts = sequences * workload.context_tokens
            return cls(Cache(keys, values, starts=starts), None, workload)
        blocks = torch.arange(workload.context_blocks, dtype=torch.int32, device=keys.device)
        pages = sequences[:, None] * workload.context_blocks + blocks
        cache = Cache(keys, values, pages=pages)
        lengths = torch.full_like(sequences, workload.context_tokens)
        return cls(cache, page_bounds(cache, lengths, workload.piece_tokens), workload)

    def new_rows(self, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the new tokens' K and V of a group lie, [new tokens, head_dim] each, to write to.

        A prompt's are all of the group's; a decode's the last row of every sequence.
        """
        if self.workload.phase == "prefill":
            return self.cache.keys[group], self.cache.values[group]
        blocks, size = self.workload.context_blocks, self.workload.block_tokens
        pages, within = slice(blocks - 1, None, blocks), (self.workload.context_tokens - 1) % size
        return self.cache.keys[pages, group, within], self.cache.values[pages, group, within]

    def refresh_bounds(self, context_tokens: torch.Tensor) -> None:
        """Bring the bounds of the pages with new tokens up to date."""
        if self.bounds is not None:
            update_page_bounds(self.cache, self.bounds, context_tokens)
