"""How a profile was measured: every choice, so that anyone can measure it again."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from profiles.first_fault import FirstFault
from profiles.size_fields import SizeFields, block_of

Count = Annotated[int, Field(ge=0, le=2**31)]
Correlation = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class _Record(FirstFault, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stability(_Record):
    """Spearman's rank correlation of what heads need, between two contexts or two tasks.

    Heads are ranked by the budget that recovers `recovery`, as a share of the context; `layers`
    ranks the heads of each layer by themselves, `model` all heads together. None where all heads
    need the same, so that there is no order to compare.
    """

    axis: Literal["context", "task"]
    between: tuple[str, str]
    recovery: Annotated[float, Field(gt=0, le=1)]
    layers: list[Correlation | None]
    model: Correlation | None


class Measurement(_Record, SizeFields):
    """What `hplb profiles measure` was run on and with, `block_tokens` query rows to a list.

    `prompts` counts the prompts of every task; `rows` is how many query rows of a prompt were
    looked at, drawn by `seed`; `sink_tokens` and `local_tokens` belong to every oracle budget.
    `weights_sha256` and `data_sha256` name the model's and the prompts' very bytes.
    """

    model: str
    weights_sha256: str
    data_sha256: str
    prompts: dict[str, Count]
    rows: Count
    seed: int
    block_tokens: Annotated[int, Field(ge=16, le=128)]
    piece_tokens: Annotated[int, Field(ge=16, le=128, default_factory=block_of)]
    sink_tokens: Count
    local_tokens: Count
    versions: dict[str, str]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    stability: list[Stability] = []
