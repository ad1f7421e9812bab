"""What a plan is asked for with: the body of `POST /plan`, mirrored by `hplb plan`'s flags."""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from profiles.cost.work import Deployment, Phase, Workload
from profiles.model import ModelProfile
from solver.problem import Unit

Policy = Literal["profile", "uniform", "recovery", "max_min", "max_min_shifting"]
Method = Literal["auto", "contiguous", "snake", "greedy", "greedy_equal", "cp_sat", "ilp"]
MAX_DEVICES = 4096
MAX_CONTEXT = 16 * 2**20
DEFAULT_BLOCK_TOKENS = 64
PATH_PATTERN = r"^[^\x00-\x1f]{1,4096}$"
"""A name, or on the command line a path: anything printable."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceGroup(_Options):
    """`count` devices of one type of the catalogue."""

    type: str
    count: Annotated[int, Field(ge=1, le=MAX_DEVICES)] = 1


class BudgetOptions(_Options):
    """How many tokens each head may attend to.

    `tokens` is the mean per head (`uniform`, `max_min`); `recovery` the share of attention mass
    to reach (`recovery`, and `profile` where the profile has curves); `scope` and `total` say
    over what, and in which unit, max-min keeps the total fixed.
    """

    policy: Policy = "profile"
    tokens: Annotated[int, Field(ge=1, le=MAX_CONTEXT)] | None = None
    recovery: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.9
    scope: Literal["layer", "model"] = "layer"
    total: Literal["tiles", "tokens"] = "tiles"


class PlacementOptions(_Options):
    """The rules a placement obeys: what moves as one, and whether counts must be equal."""

    unit: Unit = "head"
    equal_counts: bool = False


class PlanRequest(_Options):
    """A model profile, devices, a workload, and how to decide."""

    profile: Annotated[str, Field(pattern=PATH_PATTERN)] | ModelProfile
    gpus: Annotated[int, Field(ge=1, le=MAX_DEVICES, strict=True)] | None = None
    device_type: str = "h200"
    devices: Annotated[list[DeviceGroup], Field(min_length=1, max_length=MAX_DEVICES)] | None = None
    context_tokens: Annotated[int, Field(ge=1, le=MAX_CONTEXT)]
    phase: Phase = "prefill"
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 1
    deployment: Deployment = "disaggregated"
    budget: BudgetOptions = BudgetOptions()
    placement: PlacementOptions = PlacementOptions()
    method: Method = "auto"
    time_limit_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10.0
    tolerance: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 1e-3
    fresh: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.gpus is None) == (self.devices is None):
            raise ValueError("gpus: give either gpus (with device_type) or devices, not both")
        if sum(group.count for group in self.devices or []) > MAX_DEVICES:
            raise ValueError(f"devices: more than {MAX_DEVICES} devices")
        tokens = self.budget.tokens
        if tokens is not None and tokens > self.context_tokens:
            raise ValueError(
                f"budget.tokens: {tokens} is above context_tokens ({self.context_tokens})"
            )
        if tokens is not None and self.budget.policy in ("profile", "recovery"):
            raise ValueError(
                f"budget.tokens: policy {self.budget.policy!r} takes none; it is for uniform, "
                "max_min and max_min_shifting"
            )
        if tokens is None and self.budget.policy in ("uniform", "max_min", "max_min_shifting"):
            raise ValueError(
                f"budget.tokens: policy {self.budget.policy!r} needs the mean tokens per head"
            )
        return self

    @property
    def device_types(self) -> list[str]:
        """The type of every device, by index."""
        if self.devices is None:
            return [self.device_type] * (self.gpus or 0)
        return [group.type for group in self.devices for _ in range(group.count)]

    @property
    def workload(self) -> Workload:
        """The step the plan is for."""
        return Workload(
            context_tokens=self.context_tokens,
            phase=self.phase,
            batch_size=self.batch_size,
            deployment=self.deployment,
            block_tokens=DEFAULT_BLOCK_TOKENS,
        )

    def digest(self, profile_digest: str, rates_versions: list[str]) -> str:
        """Names the request: profile content, options and cost-model versions, but not `fresh`."""
        options = self.model_dump(mode="json", exclude={"profile", "fresh"})
        content = {"options": options, "profile": profile_digest, "rates": rates_versions}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
