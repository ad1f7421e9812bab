"""The shape of a model, as far as attention is concerned."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Dtype = Literal["bfloat16", "float16", "float32"]
ITEM_BYTES: dict[Dtype, int] = {"bfloat16": 2, "float16": 2, "float32": 4}


class Architecture(BaseModel):
    """Layers, heads and widths; query head h belongs to KV head h // (query_heads / kv_heads)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: Annotated[int, Field(ge=1, le=1024)]
    query_heads: Annotated[int, Field(ge=1, le=1024)]
    kv_heads: Annotated[int, Field(ge=1, le=1024)]
    head_dim: Annotated[int, Field(ge=1, le=1024)]
    hidden_size: Annotated[int, Field(ge=1, le=1_000_000)]
    dtype: Dtype = "bfloat16"

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.query_heads % self.kv_heads:
            raise ValueError(
                f"query_heads ({self.query_heads}) must be a multiple of kv_heads "
                f"({self.kv_heads}): every KV head serves the same number of query heads"
            )
        return self

    @property
    def group_size(self) -> int:
        """Query heads that share one KV head."""
        return self.query_heads // self.kv_heads

    @property
    def item_bytes(self) -> int:
        """Bytes of one element of Q, K and V."""
        return ITEM_BYTES[self.dtype]

    def kv_head(self, head: int) -> int:
        """The KV head (= KV group) that query head `head` reads."""
        return head // self.group_size
