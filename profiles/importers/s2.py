"""S2-Attention / DKernel's local-stride patterns (arXiv 2407.17678), from their parameters.

Query block i of a strided KV head attends the last `local_blocks` key blocks and, beyond them,
every `vert_stride`-th. The offset at which a head's stride starts shifts which blocks those are,
not how many, so all strided heads cost the same; the last `num_dense_heads` KV heads are dense.
"""

import math
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from profiles.architecture import Architecture
from profiles.errors import ProfileError, describe
from profiles.files import read_json
from profiles.importers.sources import build, per_query_head, require_shape
from profiles.model import ModelProfile
from profiles.selection import Strided

Count = Annotated[int, Field(ge=1, le=2**20, strict=True)]


class StridedPattern(BaseModel):
    """A pattern's parameters under DKernel's names; num_kv_heads defaults to num_heads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_heads: Count
    local_blocks: Count
    vert_stride: Count
    num_dense_heads: Annotated[int, Field(ge=0, strict=True)] = 0
    block_size: Count = 64
    num_kv_heads: Count | None = None
    layers: Count | None = None

    @model_validator(mode="after")
    def _dense_heads_exist(self) -> Self:
        kv_heads = self.num_kv_heads or self.num_heads
        if self.num_dense_heads > kv_heads:
            raise ValueError(
                f"num_dense_heads: {self.num_dense_heads} of {kv_heads} KV heads cannot be dense"
            )
        return self

    def rule(self) -> tuple[float, float]:
        """Alpha in tokens and beta of the budget with a strided head's causal work.

        With local blocks l, stride v and a context of n, the pattern skips (1 - 1/v) of the
        triangle of (n - l)^2 / 2 pairs beyond the local band; a budget of k skips a triangle of
        (n - k)^2 / 2. They are equal at every n > l for n - k = (n - l) * sqrt(1 - 1/v), whence
        beta = 1 - sqrt(1 - 1/v) and alpha = l * sqrt(1 - 1/v). The budget is that of the mean
        row: the last row of a long context attends 1/v of it, about twice beta.
        """
        kept_apart = math.sqrt(1 - 1 / self.vert_stride)
        return self.local_blocks * self.block_size * kept_apart, 1 - kept_apart


def read(path: Path, name: str, architecture: Architecture) -> ModelProfile:
    """Rules of equal causal work for a JSON file of the pattern's parameters, all layers alike.

    A dense head is alpha 0, beta 1. Raises ProfileError.
    """
    try:
        pattern = StridedPattern.model_validate(read_json(path))
    except ValidationError as error:
        raise ProfileError(f"{path}: {describe(error)}") from None
    kv_heads = pattern.num_kv_heads or pattern.num_heads
    layers = pattern.layers or architecture.layers
    require_shape(path, (layers, pattern.num_heads), architecture)
    require_shape(path, (layers, kv_heads), architecture, "KV")
    dense = np.arange(kv_heads) >= kv_heads - pattern.num_dense_heads
    alpha, beta = pattern.rule()
    by_layer = (layers, 1)
    heads = {
        "form": "rules",
        "alpha_tokens": np.tile(
            per_query_head(np.where(dense, 0.0, alpha), architecture), by_layer
        ).tolist(),
        "beta": np.tile(
            per_query_head(np.where(dense, 1.0, beta), architecture), by_layer
        ).tolist(),
    }
    what = (
        f"S2-Attention local-stride pattern (local_blocks {pattern.local_blocks}, vert_stride "
        f"{pattern.vert_stride}, num_dense_heads {pattern.num_dense_heads}, block_size "
        f"{pattern.block_size}), as the rule of equal causal work"
    )
    selection = Strided(
        block_tokens=pattern.block_size,
        local_blocks=pattern.local_blocks,
        vert_stride=pattern.vert_stride,
        dense_kv_heads=pattern.num_dense_heads,
    )
    return build(path, name, architecture, heads, what, selection)
