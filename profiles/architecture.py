"""The shape of a model: of its attention, and of the MLP beside it where that is known."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from profiles.first_fault import FirstFault

Dtype = Literal["bfloat16", "float16", "float32"]
ITEM_BYTES: dict[Dtype, int] = {"bfloat16": 2, "float16": 2, "float32": 4}
SHAPE = ("layers", "query_heads", "kv_heads", "head_dim", "hidden_size")
"""What plans, profiles and models must agree on; a CPU computes in another dtype than planned."""
MLP_FIELDS = ("mlp_size", "mlp_matrices", "experts", "experts_per_token")
Windows = tuple[Annotated[int, Field(ge=1, le=2**31)] | None, ...]


def _is_empty(windows: object) -> bool:
    return not windows


def _is_one(count: object) -> bool:
    return count == 1


class Architecture(FirstFault, BaseModel):
    """Layers, heads and widths; query head h belongs to KV head h // (query_heads / kv_heads).

    `windows` [layers]: how many tokens back a row of the layer sees, itself included, whatever the
    context; None where it sees all. Empty, and left out of the JSON, where every layer does.

    `mlp_size`: the width of a layer's MLP, of one expert's where it has several; None where it is
    not known. A token passes `experts_per_token` of `experts`, through `mlp_matrices` matrices
    each: 3 with a gate, 2 without. Left out of the JSON where they are the usual ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: Annotated[int, Field(ge=1, le=1024)]
    query_heads: Annotated[int, Field(ge=1, le=1024)]
    kv_heads: Annotated[int, Field(ge=1, le=1024)]
    head_dim: Annotated[int, Field(ge=1, le=1024)]
    hidden_size: Annotated[int, Field(ge=1, le=1_000_000)]
    dtype: Dtype = "bfloat16"
    windows: Annotated[Windows, Field(exclude_if=_is_empty)] = ()
    mlp_size: Annotated[
        Annotated[int, Field(ge=1, le=10_000_000)] | None, Field(exclude_if=_is_empty)
    ] = None
    mlp_matrices: Annotated[Literal[2, 3], Field(exclude_if=lambda number: number == 3)] = 3
    experts: Annotated[int, Field(ge=1, le=65_536, exclude_if=_is_one)] = 1
    experts_per_token: Annotated[int, Field(ge=1, le=65_536, exclude_if=_is_one)] = 1

    @field_validator("windows")
    @classmethod
    def _some_window(cls, windows: Windows) -> Windows:
        return windows if any(window is not None for window in windows) else ()

    @model_validator(mode="after")
    def _a_window_a_layer(self) -> Self:
        if self.windows and len(self.windows) != self.layers:
            raise ValueError(f"windows: {len(self.windows)} of them for {self.layers} layers")
        return self

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.query_heads % self.kv_heads:
            raise ValueError(
                f"query_heads ({self.query_heads}) must be a multiple of kv_heads "
                f"({self.kv_heads}): every KV head serves the same number of query heads"
            )
        return self

    @model_validator(mode="after")
    def _experts_there_are(self) -> Self:
        if self.experts_per_token > self.experts:
            raise ValueError(
                f"experts_per_token: {self.experts_per_token} of {self.experts} experts"
            )
        return self

    @property
    def attention(self) -> Self:
        """The shape without its MLP: all that budgets, placements and K/V go by."""
        usual = {name: type(self).model_fields[name].default for name in MLP_FIELDS}
        return self.model_copy(update=usual)

    def differing(self, other: Self) -> list[str]:
        """The fields of `SHAPE` that are not the other's."""
        return [name for name in SHAPE if getattr(self, name) != getattr(other, name)]

    @property
    def group_size(self) -> int:
        """Query heads that share one KV head."""
        return self.query_heads // self.kv_heads

    @property
    def item_bytes(self) -> int:
        """Bytes of one element of Q, K and V."""
        return ITEM_BYTES[self.dtype]

    def reaches(self, context_tokens: int) -> list[int]:
        """The most tokens that a row of each layer can see in a context, `[layers]`."""
        windows = self.windows or (None,) * self.layers
        return [context_tokens if w is None else min(w, context_tokens) for w in windows]

    def kv_head(self, head: int) -> int:
        """The KV head (= KV group) that query head `head` reads."""
        return head // self.group_size
