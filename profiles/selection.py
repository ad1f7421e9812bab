"""How the key pieces of a head are chosen within its budget: which ones, not how many."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from profiles.architecture import Architecture
from profiles.first_fault import FirstFault

Count = Annotated[int, Field(ge=1, le=2**20)]
MOST_ROWS = 16
"""Rows of a query block that may be sampled: the smallest block has no more."""


class _Selection(FirstFault, BaseModel):
    """`scores`: whether pieces are scored to be chosen, rather than follow from a rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: ClassVar[bool]


class Pooled(_Selection):
    """Pieces whose mean key scores best against the query block's mean query (MoBA, SpargeAttn)."""

    scores = True
    kind: Literal["pooled"] = "pooled"


class VerticalSlash(_Selection):
    """Columns and diagonals that score best for the last queries (MInference, arXiv 2407.02490)."""

    scores = True
    kind: Literal["vertical_slash"] = "vertical_slash"


class Sampled(_Selection):
    """Pieces that hold the most attention of `rows` rows of a query block (SampleAttention).

    arXiv 2406.15486, section 4; the rows are scored against every key, exactly.
    """

    scores = True
    kind: Literal["sampled"] = "sampled"
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 8


class SinkLocal(_Selection):
    """The first `sink_tokens` and the nearest keys, together as many as the budget says.

    MoA (arXiv 2406.14909), DuoAttention (arXiv 2410.10819), StreamingLLM (arXiv 2309.17453).
    """

    scores = False
    kind: Literal["sink_local"] = "sink_local"
    sink_tokens: Annotated[int, Field(ge=0, le=2**31)]


class Strided(_Selection):
    """S2-Attention's local and strided blocks of `block_tokens` (arXiv 2407.17678).

    Square blocks, which have no smaller pieces: the last `local_blocks` of keys and, beyond them,
    every `vert_stride`-th; the last `dense_kv_heads` KV heads attend to all. A budget is only the
    pattern's causal work as tokens.
    """

    scores = False
    kind: Literal["strided"] = "strided"
    block_tokens: Count
    local_blocks: Count
    vert_stride: Count
    dense_kv_heads: Annotated[int, Field(ge=0, le=1024)] = 0

    def dense(self, kv_head: int, architecture: Architecture) -> bool:
        """Whether the query heads of `kv_head` attend to every block."""
        return kv_head >= architecture.kv_heads - self.dense_kv_heads

    def offset(self, kv_head: int, architecture: Architecture) -> int:
        """The blocks b of this KV head's stride are those with b % vert_stride == offset.

        Shifted from one KV head to the next, so that together they cover the context. The step
        follows from the number of query heads (DKernel's head_sliding_step).

        >>> llama = Architecture(
        ...     layers=32, query_heads=32, kv_heads=8, head_dim=128, hidden_size=4096
        ... )
        >>> pattern = Strided(block_tokens=64, local_blocks=16, vert_stride=4)
        >>> [pattern.offset(kv_head, llama) for kv_head in range(8)]
        [0, 3, 2, 1, 0, 3, 2, 1]
        """
        step = max(1, self.vert_stride // architecture.query_heads)
        return -kv_head * step % self.vert_stride


POOLED = Pooled()
SAMPLED = Sampled()
NEAREST = SinkLocal(sink_tokens=0)


def _is_default(selection: object) -> bool:
    return selection == POOLED


Selection = Annotated[
    Pooled | VerticalSlash | Sampled | SinkLocal | Strided,
    Field(discriminator="kind", exclude_if=_is_default),
]
"""Left out of the JSON where it is `POOLED`, so that what was named before it keeps its digest."""


def of_layer(selection: "Selection", architecture: Architecture, layer: int) -> "Selection":
    """What the heads of a layer choose by: where it has a window, the nearest keys."""
    windows = architecture.windows
    return NEAREST if windows and windows[layer] is not None else selection
