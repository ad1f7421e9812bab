"""The plan: who computes what, predicted seconds, and the certificate. Frozen and content-named."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from profiles.architecture import Architecture
from profiles.cost.work import Deployment, Phase, Workload
from profiles.errors import HplbError
from profiles.model import describe

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
UNTIMED = {"id", "solve_s", "created_at"}
"""Fields that do not count towards a plan's identity."""


class PlanError(HplbError):
    """A plan's JSON is not a plan, or its content breaks its own rules."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Part):
    """A device and the share of a head's rows it does; 1 is the whole head."""

    device: Annotated[int, Field(ge=0)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class LayerPlan(_Part):
    """One layer: `heads[head]` is an ordered list of entries, `loads_s[device]` whole loads."""

    makespan_s: Seconds
    lower_bound_s: Seconds
    bound: str
    loads_s: list[Seconds]
    heads: list[list[Entry]]


class Costs(_Part):
    """What the loads were computed from: seconds per device type, launch and charges apart.

    head_s [layers][heads][types], group_s [layers][kv_heads][types], launch_s [types].
    """

    head_s: list[list[list[Seconds]]]
    group_s: list[list[list[Seconds]]]
    launch_s: list[Seconds]


class ProfileRef(_Part):
    """Which profile the plan was made from."""

    name: str
    digest: str
    source: str
    synthetic: bool


class Step(_Part):
    """The workload the plan is for."""

    context_tokens: int
    phase: Phase
    batch_size: int
    deployment: Deployment
    block_tokens: int

    @property
    def workload(self) -> Workload:
        return Workload(**self.model_dump())


class Rules(_Part):
    """The rules the placement obeys."""

    unit: Literal["head", "kv_group"]
    equal_counts: bool


class Plan(_Part):
    """A placement, its budgets, its predicted seconds and its certificate.

    `budgets` [layers][heads] tokens, `kv_copies` [layers], `kv_bytes` [devices]; `devices` names
    the type of every device by index, `device_types` the axis of `costs`.
    """

    id: str = ""
    status: Literal["optimal", "feasible"]
    solver: str
    reason: str | None = None
    makespan_s: Seconds
    lower_bound_s: Seconds
    gap: Annotated[float, Field(ge=0, le=1)]
    tolerance: float
    bubble_ratio: float
    imbalance: float | None
    stock_compatible: bool
    stock_reason: str
    kv_copies: list[int]
    kv_bytes: list[int]
    budgets: list[list[int]]
    warnings: list[str]
    layers: list[LayerPlan]
    profile: ProfileRef
    architecture: Architecture
    workload: Step
    rules: Rules
    devices: list[str]
    device_types: list[str]
    cost_model: dict[str, str]
    costs: Costs
    solve_s: Seconds = 0.0
    created_at: str = ""

    def identified(self) -> Self:
        """The same plan with its content id."""
        return self.model_copy(update={"id": content_id(self.model_dump(mode="json"))})

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """Read a plan's JSON."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise PlanError(f"{where}: {describe(error)}") from None


def content_id(plan: dict[str, Any]) -> str:
    """SHA-256 of a plan's canonical JSON without timings and timestamps."""
    content = {field: value for field, value in plan.items() if field not in UNTIMED}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
