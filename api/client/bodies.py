"""The bodies of docs/http.md beyond `PlanRequest`, `Plan`, `ModelProfile` and `Rates`.

What the service and its clients believe of a message is this one definition: the routes read and
answer these types, `PlannerClient` sends and reads them, executors keep them on disk. What is sent,
and all that a node is told, refuses fields it does not know; of other answers a client takes what
it knows.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from profiles.cost.samples import LONGEST_S, MOST_UNITS, SHORTEST_S
from profiles.cost.work import Deployment, Phase
from profiles.first_fault import FirstFault
from profiles.left_out import is_none
from profiles.model import NAME_PATTERN
from solver.plans import Plan, content_id

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Token = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
Line = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
Text = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")]
Index = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seconds = Annotated[float, Field(ge=SHORTEST_S, le=LONGEST_S, allow_inf_nan=False)]
Units = Annotated[float, Field(ge=0, le=MOST_UNITS, allow_inf_nan=False)]
Rows = Annotated[int, Field(ge=1, le=2**40)]
Positions = Annotated[int, Field(ge=1, le=2**31 - 1)]
Tiles = Annotated[int, Field(ge=1, le=2**60)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Timing = Literal["alone", "concurrent"]
MOST_SAMPLES = 1_000_000
MOST_STEPS = 10_000
MEASUREMENTS_HEADER, COLUMNS = "HPLB-Measurements", "columns"
"""How a planner says, to nodes that register or deliver, that it reads batches in columns."""


Key = tuple[str, int, str]
"""Deployment, generation and plan id: what a measurement is a measurement of."""


class _Exact(FirstFault, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FieldError(BaseModel):
    """A field by its path in the body, query or URL, and what is wrong with it."""

    field: str
    message: str


class ProblemBody(BaseModel):
    """RFC 9457, with `errors` as the extension member for bad fields."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


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


class ComparedPlan(BaseModel):
    """A plan beside others: `lower_bound_s` is the best that any of them proves for its rules."""

    plan_id: str
    method: str
    gpus: int
    deployment: Deployment
    status: Literal["optimal", "feasible"]
    makespan_s: float
    lower_bound_s: float
    makespan_over_bound: float
    gap: float
    bubble_ratio: float
    imbalance: float | None
    kv_copies: int
    divisions: int
    solve_s: float
    warnings: list[str]


class Compared(BaseModel):
    """Plans for one profile and workload; `title` says which, `notes` what they warn of."""

    title: str
    rows: list[ComparedPlan]
    notes: list[str]


class SolveAccepted(BaseModel):
    """The answer to a request that is being solved; `events` and `cancel` are paths."""

    id: str
    status: Literal["queued", "solving"]
    events: str
    cancel: str


class SolveStatus(BaseModel):
    """How far a solve is; null before its first incumbent. `elapsed_s` counts from its start."""

    id: str
    status: Literal["queued", "solving"]
    makespan_s: float | None = None
    lower_bound_s: float | None = None
    gap: float | None = None
    settled: int | None = None
    layers: int | None = None
    elapsed_s: float


class SolveUnderWay(SolveStatus):
    """A solve in the list of those under way; `asked_at` in seconds since the epoch."""

    client: str
    urgency: int
    asked_at: float


class SolveList(BaseModel):
    solves: list[SolveUnderWay]


class PlanCheck(BaseModel):
    """What a request comes to before anything is solved.

    `id` is its solve's, `plan_id` the stored plan that answers it, `size` counts combinations of
    workload, layer, head and device, `quick` says that it does not wait for searches.
    """

    id: str
    plan_id: str | None
    size: int
    quick: bool


class Incumbent(BaseModel):
    """Data of the event `incumbent`: a better plan or bound; `settled` of `layers` are proved."""

    model_config = ConfigDict(frozen=True)

    revision: int
    makespan_s: float
    lower_bound_s: float
    gap: float
    settled: int
    layers: int
    elapsed_s: float


class SolveEnd(BaseModel):
    """Data of the event `done`: the plan that was kept."""

    model_config = ConfigDict(frozen=True)

    plan_id: str
    status: Literal["optimal", "feasible"]
    makespan_s: float
    lower_bound_s: float
    gap: float


class SolveCut(SolveEnd):
    """Data of the event `cancelled`: the best plan there was, kept too."""


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


class NodeRegistration(_Exact):
    """`devices` are the types of the node's local devices, in order."""

    node_id: Name
    boot_id: Token
    devices: Annotated[list[Line], Field(min_length=1, max_length=1024)]
    backend: Line
    versions: Annotated[dict[Line, Line], Field(max_length=64)] = {}


class Active(_Exact):
    """The generation of a deployment that a node has checkpointed and runs."""

    deployment: Name
    generation: Index


class LeaseRenewal(_Exact):
    """What a node runs, and why it does not run what it is to."""

    boot_id: Token
    active: Active | None = None
    error: Text | None = None


class Lease(_Exact):
    """Renew within `lease_s`."""

    node_id: str
    lease_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]


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
    total: int


class Assignment(_Exact):
    """What a node is to run: `devices[i]` is the plan's device that its local device i plays.

    After `rounds` rounds, one more every `every_s` seconds, where given.
    """

    deployment: Name
    generation: Index
    plan_id: Name
    plan: Plan
    devices: Annotated[list[Index], Field(min_length=1)]
    layers: Annotated[list[Index], Field(min_length=1)]
    rounds: Annotated[int, Field(ge=1)]
    every_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False, exclude_if=is_none)] = None

    @model_validator(mode="after")
    def _refers_to_its_plan(self) -> Self:
        if content_id(self.plan.model_dump(mode="json")) != self.plan_id:
            raise ValueError("plan_id: is not the content id of the plan that came with it")
        for field, limit in (("devices", self.plan.devices), ("layers", self.plan.layers)):
            indices: list[int] = getattr(self, field)
            if max(indices) >= len(limit) or len(set(indices)) < len(indices):
                raise ValueError(
                    f"{field}: must be different indices below {len(limit)}, got {indices}"
                )
        return self

    @property
    def key(self) -> Key:
        """What its measurements are of."""
        return self.deployment, self.generation, self.plan_id

    @property
    def active(self) -> Active:
        """How a lease names it."""
        return Active(deployment=self.deployment, generation=self.generation)


class DeploymentRequest(_Exact):
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
    """A head that falls short; of an engine, in requests of that phase and context."""

    layer: int
    head: int
    expected: float
    observed: float
    phase: Phase | None = None
    context_tokens: int | None = None


class RequestDrift(BaseModel):
    """The verdict on an engine's requests of a phase, with contexts above half of
    `context_tokens` and up to it. Without `heads` none of them were judged in the window: what was
    raised stays."""

    phase: Phase
    context_tokens: int
    raised: bool
    since: str | None
    rounds: int
    heads: int
    heads_drifted: int
    observed_mean: float | None
    expected_mean: float | None


class RecoveryDrift(BaseModel):
    """What heads recover beside what the profile promised, over the window's newest rounds.

    `requests` is null but of an engine, whose requests are judged by phase and context.
    """

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
    requests: list[RequestDrift] | None = None


class TrafficClass(BaseModel):
    """A workload that an engine's steps came to, and its share of all seconds of attention."""

    phase: Phase
    context_tokens: int
    batch_size: int
    share: float


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
    traffic: list[TrafficClass] | None = None
    decision: str | None


class DeploymentList(BaseModel):
    deployments: list[DeploymentView]
    total: int


class HeadReport(_Exact):
    """What the key pieces of a device held of a query head's attention.

    `rows` are the query rows of the head that the device computed, `tiles` their (query block, key
    piece) products, `recovery` the share of attention mass these held, a mean over a few rows.
    """

    head: Index
    rows: Rows
    tiles: Tiles
    recovery: Share


class WatchedRows(_Exact):
    """What the lists of a query head held of rows that a step of an engine brought.

    `rows` rows, at positions from `first` up to `last` in their sequence; of several sequences
    alike in length the means of both. `recovery` is the share of attention mass that their lists
    held, a mean over a few rows.
    """

    head: Index
    first: Index
    last: Positions
    rows: Positions
    recovery: Share


class StepReport(_Exact):
    """A part of an engine's step that is all prompts, or all decodes, of whatever lengths.

    `number` counts the engine's steps, alike on all ranks. `new_tokens` are the rows of q that
    `sequences` bring, the longest of which has `context_tokens` with them. `mean_tokens`: whole
    prompts of so many tokens have as many keys a row; of decodes the mean context.
    """

    number: Index
    phase: Phase
    sequences: Annotated[int, Field(ge=1, le=2**20)]
    new_tokens: Rows
    context_tokens: Rows
    mean_tokens: Annotated[float, Field(ge=1, le=2**41, allow_inf_nan=False)]


class DeviceSample(_Exact):
    """Seconds of the plan's device `device` in `layer`, and the work it did; absent work is 0.

    `work` in units of `FEATURES`. `heads` only of a model's own activations: recovery of random
    tensors says nothing. `step` is the place of the batch's step that it is of, where it has them,
    and `watched` what lists held in that step, of the layers that were looked at.
    """

    layer: Index
    device: Index
    seconds: Seconds
    work: dict[str, Units]
    step: Annotated[Index | None, Field(exclude_if=is_none)] = None
    heads: Annotated[list[HeadReport] | None, Field(max_length=1024, exclude_if=is_none)] = None
    watched: Annotated[
        list[WatchedRows] | None, Field(max_length=MOST_SAMPLES, exclude_if=is_none)
    ] = None


Indices = Annotated[list[Index], Field(max_length=MOST_SAMPLES)]


class _ColumnsOfSamples(_Exact):
    sample: Indices

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        _check_lengths(self, len(self.sample))
        return self


class HeadColumns(_ColumnsOfSamples):
    """`HeadReport`s column by column; `sample` is the index of the sample that each belongs to."""

    head: Indices
    rows: Annotated[list[Rows], Field(max_length=MOST_SAMPLES)]
    tiles: Annotated[list[Tiles], Field(max_length=MOST_SAMPLES)]
    recovery: Annotated[list[Share], Field(max_length=MOST_SAMPLES)]


class WatchedColumns(_ColumnsOfSamples):
    """`WatchedRows` column by column; `sample` as in `HeadColumns`."""

    head: Indices
    first: Indices
    last: Annotated[list[Positions], Field(max_length=MOST_SAMPLES)]
    rows: Annotated[list[Positions], Field(max_length=MOST_SAMPLES)]
    recovery: Annotated[list[Share], Field(max_length=MOST_SAMPLES)]


Columns = TypeVar("Columns", HeadColumns, WatchedColumns)


class SampleColumns(_Exact):
    """`DeviceSample`s column by column, all of one length; a feature left out is 0 in all."""

    layer: Annotated[list[Index], Field(min_length=1, max_length=MOST_SAMPLES)]
    device: Indices
    seconds: Annotated[list[Seconds], Field(max_length=MOST_SAMPLES)]
    work: dict[str, Annotated[list[Units], Field(max_length=MOST_SAMPLES)]]
    step: Annotated[Indices | None, Field(exclude_if=is_none)] = None
    heads: Annotated[HeadColumns | None, Field(exclude_if=is_none)] = None
    watched: Annotated[WatchedColumns | None, Field(exclude_if=is_none)] = None

    @classmethod
    def of(cls, samples: list[DeviceSample]) -> Self:
        """The same samples."""
        features = dict.fromkeys(name for sample in samples for name in sample.work)
        reports = [(i, head) for i, sample in enumerate(samples) for head in sample.heads or []]
        steps = [sample.step for sample in samples]
        watched = [(i, rows) for i, sample in enumerate(samples) for rows in sample.watched or []]
        return cls.model_construct(
            layer=[sample.layer for sample in samples],
            device=[sample.device for sample in samples],
            seconds=[sample.seconds for sample in samples],
            work={name: [sample.work.get(name, 0.0) for sample in samples] for name in features},
            step=steps if any(step is not None for step in steps) else None,
            heads=_by_column(HeadColumns, reports) if reports else None,
            watched=_by_column(WatchedColumns, watched) if watched else None,
        )

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        _check_lengths(self, len(self.layer))
        for name, counts in self.work.items():
            if len(counts) != len(self.layer):
                raise ValueError(f"work.{name}: has {len(counts)} counts, not {len(self.layer)}")
        for name in ("heads", "watched"):
            inside: HeadColumns | WatchedColumns | None = getattr(self, name)
            if inside and max(inside.sample, default=0) >= len(self.layer):
                raise ValueError(f"{name}.sample: there are {len(self.layer)} samples")
        return self


def _by_column(kind: type[Columns], reports: Sequence[tuple[int, BaseModel]]) -> Columns:
    """Reports column by column, each with the index of its sample."""
    names = [name for name in kind.model_fields if name != "sample"]
    columns: dict[str, Any] = {
        name: [getattr(report, name) for _, report in reports] for name in names
    }
    return kind.model_construct(sample=[sample for sample, _ in reports], **columns)


def _check_lengths(columns: BaseModel, length: int) -> None:
    for name, column in columns:
        if isinstance(column, list) and len(column) != length:
            raise ValueError(f"{name}: has {len(column)} values, not {length}")


class _BatchHead(_Exact):
    batch_id: Token
    deployment: Name
    plan_id: Name
    generation: Index
    node_id: Name
    timing: Timing
    run: Annotated[Token | None, Field(exclude_if=is_none)] = None
    steps: Annotated[
        list[StepReport] | None,
        Field(min_length=1, max_length=MOST_STEPS, exclude_if=is_none),
    ] = None

    @model_validator(mode="after")
    def _steps_of_a_run(self) -> Self:
        if (self.run is None) != (self.steps is None):
            raise ValueError("run: names the engine's run that `steps` are of; give both or none")
        return self

    @property
    def key(self) -> Key:
        """What it is a measurement of."""
        return self.deployment, self.generation, self.plan_id


class MeasurementBatch(_BatchHead):
    """One round of one node; `batch_id` makes sending it twice harmless.

    Of an engine `steps` are those that it timed since its last batch, in a `run` that all of its
    ranks name alike; a rank that had nothing to do in some has no samples of them.
    """

    samples: Annotated[list[DeviceSample], Field(min_length=1, max_length=MOST_SAMPLES)]

    def in_columns(self) -> "MeasurementBody":
        """The compact form, of 32 layers two fifths of the bytes."""
        head = {name: getattr(self, name) for name in _BatchHead.model_fields}
        return MeasurementBody.model_construct(**head, columns=SampleColumns.of(self.samples))


class MeasurementBody(_BatchHead):
    """A batch as it travels: in `columns`, or in `samples` to and from those that know no other."""

    samples: Annotated[
        list[DeviceSample] | None,
        Field(min_length=1, max_length=MOST_SAMPLES, exclude_if=is_none),
    ] = None
    columns: Annotated[SampleColumns | None, Field(exclude_if=is_none)] = None

    @model_validator(mode="after")
    def _in_one_form(self) -> Self:
        if (self.samples is None) == (self.columns is None):
            raise ValueError("samples, columns: give one of both")
        return self


class MeasurementReceipt(_Exact):
    """What became of a batch; `rejected` samples no such chip could have produced."""

    batch_id: str
    duplicate: bool
    accepted: int
    rejected: int


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class ServiceVersion(BaseModel):
    """The release of the service, the paths it answers under, and what it is made from."""

    version: str
    api: list[str]
    python: str
    ortools: str
