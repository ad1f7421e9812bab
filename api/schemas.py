"""Bodies of the HTTP interface beyond `PlanRequest`, `Plan`, `ModelProfile` and `Rates`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from profiles.cost.samples import LONGEST_S, MOST_UNITS, SHORTEST_S
from profiles.cost.work import Deployment, Phase
from profiles.model import NAME_PATTERN
from solver.plans import Plan

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Token = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
Line = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
Text = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")]
Index = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seconds = Annotated[float, Field(ge=SHORTEST_S, le=LONGEST_S, allow_inf_nan=False)]
Units = Annotated[float, Field(ge=0, le=MOST_UNITS, allow_inf_nan=False)]
Timing = Literal["alone", "concurrent"]


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanSummary(BaseModel):
    """A plan in a list; `devices` counts them by type."""

    id: str
    status: Literal["optimal", "feasible"]
    solver: str
    makespan_s: float
    lower_bound_s: float
    gap: float
    bubble_ratio: float
    profile: str
    devices: dict[str, int]
    context_tokens: int
    phase: Phase
    deployment: Deployment
    created_at: str


class PlanPage(BaseModel):
    plans: list[PlanSummary]
    total: int


class ProfileSummary(BaseModel):
    name: str
    layers: int
    query_heads: int
    kv_heads: int
    form: str
    source: str
    synthetic: bool
    digest: str


class ProfileList(BaseModel):
    profiles: list[ProfileSummary]


class VersionedRates(BaseModel):
    """Rates and the version that plans name them by."""

    version: str
    device: str
    phase: Phase
    seconds_per: dict[str, float]
    std: dict[str, float] | None
    fitted_to_tokens: int | None
    samples: int
    source: str


class CostModels(BaseModel):
    rates: list[VersionedRates]


class NodeRegistration(_Sent):
    """`devices` are the types of the node's local devices, in order."""

    node_id: Name
    boot_id: Token
    devices: Annotated[list[Line], Field(min_length=1, max_length=1024)]
    backend: Line
    versions: Annotated[dict[Line, Line], Field(max_length=64)] = {}


class Active(_Sent):
    deployment: Name
    generation: Index


class LeaseRenewal(_Sent):
    boot_id: Token
    active: Active | None = None
    error: Text | None = None


class Lease(BaseModel):
    node_id: str
    lease_s: float


class NodeView(BaseModel):
    node_id: str
    boot_id: str
    devices: list[str]
    backend: str
    versions: dict[str, str]
    live: bool
    lease_expires_at: str
    active: Active | None
    error: str | None


class NodeList(BaseModel):
    nodes: list[NodeView]


class Assignment(BaseModel):
    """`devices[i]` is the plan's device index that the node's local device i plays.

    After `rounds` rounds, one more every `every_s` seconds, where given.
    """

    deployment: str
    generation: int
    plan_id: str
    plan: Plan
    devices: list[int]
    layers: list[int]
    rounds: int
    every_s: Annotated[float | None, Field(exclude_if=lambda seconds: seconds is None)] = None


class DeploymentRequest(_Sent):
    """`layers: null` means all of the plan's; `every_s: null`, that `rounds` rounds are all."""

    plan_id: Name
    nodes: Annotated[list[Name], Field(min_length=1, max_length=4096)]
    layers: Annotated[list[Index], Field(min_length=1, max_length=1024)] | None = None
    rounds: Annotated[int, Field(ge=1, le=100)] = 3
    every_s: Annotated[float, Field(ge=0.1, le=86_400, allow_inf_nan=False)] | None = None
    refine: bool = True


class GenerationView(BaseModel):
    generation: int
    plan_id: str
    reason: str
    at: str


class MeasuredView(BaseModel):
    """`device_loads_s` [layer][device], medians over rounds, null where not measured."""

    rounds: int
    device_loads_s: list[list[float | None]]
    makespan_s: float
    bubble_ratio: float
    timing: Timing


class PredictedView(BaseModel):
    makespan_s: float
    bubble_ratio: float


class DriftedHead(BaseModel):
    layer: int
    head: int
    expected: float
    observed: float


class RecoveryDrift(BaseModel):
    """What heads recover beside what the profile promised, over the window's newest rounds."""

    raised: bool
    since: str | None
    rounds: int
    heads: int
    heads_drifted: int
    worst: list[DriftedHead]
    observed_mean: float | None
    observed_min: float | None
    expected_mean: float | None
    reason: str | None


class DeploymentView(BaseModel):
    name: str
    generation: int
    plan_id: str
    nodes: list[str]
    layers: list[int]
    rounds: int
    every_s: float | None
    refine: bool
    history: list[GenerationView]
    measured: MeasuredView | None
    predicted: PredictedView
    prediction_error: float | None
    drift: float | None
    recovery_drift: RecoveryDrift | None
    decision: str | None


class DeploymentList(BaseModel):
    deployments: list[DeploymentView]


class HeadReport(_Sent):
    """What the pieces of a device held of a head's attention, a mean over some of its `rows`."""

    head: Index
    rows: Annotated[int, Field(ge=1, le=2**40)]
    tiles: Annotated[int, Field(ge=1, le=2**60)]
    recovery: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class SampleBody(_Sent):
    """Seconds of the plan's device `device` in `layer`, and the work it did; absent work is 0.

    `heads` only of a model's own activations.
    """

    layer: Index
    device: Index
    seconds: Seconds
    work: dict[str, Units]
    heads: Annotated[list[HeadReport], Field(max_length=1024)] | None = None


class MeasurementBatch(_Sent):
    batch_id: Token
    deployment: Name
    plan_id: Name
    generation: Index
    node_id: Name
    timing: Timing
    samples: Annotated[list[SampleBody], Field(min_length=1, max_length=1_000_000)]


class MeasurementReceipt(BaseModel):
    batch_id: str
    duplicate: bool
    accepted: int
    rejected: int


class Health(BaseModel):
    status: Literal["ok"] = "ok"
