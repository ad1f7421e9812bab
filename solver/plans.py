"""The plan: who computes what, predicted seconds, and the certificate. Frozen and content-named."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from profiles.architecture import Architecture
from profiles.cost.work import Deployment, Phase, Workload
from profiles.errors import HplbError, describe
from profiles.files import write_atomically
from profiles.first_fault import FirstFault
from profiles.left_out import is_none
from profiles.selection import POOLED, Selection
from profiles.size_fields import SizeFields
from profiles.strict_json import JsonError, parse_json
from solver.shares import Floats, Shares

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Nats = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Recovery = Annotated[float, Field(ge=0, le=1)]
UNTIMED = {"id", "solve_s", "created_at"}
"""Fields that do not count towards a plan's identity."""


class PlanError(HplbError):
    """A plan's JSON is not a plan, or its content breaks its own rules."""


class _Part(FirstFault, BaseModel):
    # What is neither a number nor null cannot be written as JSON, nor named by its content.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Entry(_Part):
    """A device and the share of a head's rows it does; 1 is the whole head."""

    device: Annotated[int, Field(ge=0)]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class LayerPlan(_Part):
    """One layer: `heads[head]` is an ordered list of entries, `loads_s[device]` whole loads.

    With several workloads `loads_s` and `makespan_s` are sums over them by the plan's weights.
    """

    makespan_s: Seconds
    lower_bound_s: Seconds
    bound: str
    loads_s: list[Seconds]
    heads: list[list[Entry]]


class Costs(_Part):
    """What the loads were computed from: seconds per device type, launch and charges apart.

    head_s and part_s [layers][heads][types], group_s [layers][kv_heads][types], launch_s [types].
    A device with a share of a head is charged share * head_s + (1 - share) * part_s; where no head
    may be divided, part_s is empty.
    """

    head_s: list[list[list[Seconds]]]
    part_s: list[list[list[Seconds]]] = []
    group_s: list[list[list[Seconds]]]
    launch_s: list[Seconds]


class ProfileRef(_Part):
    """Which profile the plan was made from."""

    name: str
    digest: str
    source: str
    synthetic: bool


class Step(_Part, SizeFields):
    """The workload the plan is for, `piece_tokens` in the JSON where it is not `block_tokens`."""

    context_tokens: int
    phase: Phase
    batch_size: int
    deployment: Deployment

    @property
    def workload(self) -> Workload:
        return Workload(**self.model_dump())


class Rules(_Part):
    """The rules the placement obeys."""

    unit: Literal["head", "kv_group"]
    equal_counts: bool
    divisible: bool = False
    max_copies: int | None = None
    copies: Literal["priced", "free"] = "priced"
    objective: Literal["mean", "worst"] = "mean"


class OtherWorkload(_Part):
    """A further workload that the same placement serves, at its weight in the plan's figures.

    Shares are realised in the query blocks of its own context; `loads_s` [layers][devices].
    """

    weight: Annotated[float, Field(ge=0, le=1)]
    workload: Step
    profile: ProfileRef
    budgets: list[list[int]]
    selection: Selection = POOLED
    costs: Costs
    makespan_s: Seconds
    loads_s: list[list[Seconds]]


class Memory(_Part):
    """Bytes every device holds and may hold, `[devices]`, at a context and batch."""

    kv_retention: Literal["full", "budget"]
    context_tokens: int
    batch_size: int
    limit_bytes: list[int]
    weight_bytes: list[int]
    kv_bytes: list[int]


class OtherSlots(_Part):
    """The same request with another number of KV slots a device, as far as it was searched."""

    slots: Annotated[int, Field(ge=1)]
    makespan_s: Seconds


class Padding(_Part):
    """What it costs that every device has `slots` KV slots, and what other numbers come to.

    `least_slots` hold every KV group; `padded` counts the slots of all layers and devices that
    hold nothing, `padding_s` is what a device computes for slots beyond the least, all layers.
    `kv_share` is what is left of the K/V tokens that fit with the least. `pays_from_tokens`: the
    shortest context tried from which the plan's slots (one more than the least, where it has the
    least) beat the least; None where they do at none, or none was sought.
    """

    least_slots: Annotated[int, Field(ge=1)]
    padded: Annotated[int, Field(ge=0)]
    padding_s: Seconds
    kv_share: Annotated[float, Field(gt=0, le=1)]
    others: list[OtherSlots] = []
    pays_from_tokens: int | None = None


class Moving(_Part):
    """What leaving the current plan costs: bytes each device must fetch, paid once.

    `seconds` is the slowest device's transfer; `gain_s` a step's gain on the current placement.
    """

    current_plan: str
    bytes: int
    seconds: Seconds
    amortise_steps: int
    current_makespan_s: Seconds
    gain_s: float
    kept: bool


class Recovered(_Part):
    """What the first workload's budgets recover of the attention mass, over the heads, `[layers]`.

    By the profile's `curve`: of the pieces that the executor's selector picks, or of the best ones.
    A mean over prompts, whatever margin the budgets were chosen with.
    """

    curve: Literal["selected", "oracle"]
    mean: list[Recovery]
    least: list[Recovery]


class PromisedLoss(_Part):
    """What the first workload's budgets are predicted to add to the model's loss, nats a token.

    `nats` with its 95 % interval over the prompts that the profile was calibrated on, whose upper
    end is at most the `bound` that was asked for.
    """

    bound: Annotated[float, Field(gt=0, le=1000)]
    nats: Nats
    low: Nats
    high: Nats


class Filled(_Part):
    """What idle time bought: mean and least recovery before and after larger budgets."""

    added_tokens: int
    recovery_mean: tuple[float, float]
    recovery_min: tuple[float, float]


class Elastic(_Part):
    """The rules alpha + beta * context [layers][heads] that `elastic` chose for the first workload.

    `loss` is 1 - recovery summed over heads, averaged over `contexts`; no choice that keeps the
    density there has less than `lower_bound`. `density` [contexts] is the mean attended share.
    """

    alpha: list[list[int]]
    beta: list[list[float]]
    loss: Annotated[float, Field(ge=0)]
    lower_bound: Annotated[float, Field(ge=0)]
    density: list[float]
    contexts: list[int]


class WholeStep(_Part):
    """The step around attention, and what this placement gains of it over the stock layout.

    Seconds of all layers, each at its busiest device; sums over several workloads by the plan's
    weights. Contiguous: heads in the file's order on the same devices, with the same budgets.
    `attention_share` of the contiguous step; `gain` is contiguous_step_s / step_s - 1. Where that
    is below 1 %: `pays_from_tokens`, the first context tried from which it would not be, with
    `tried_to_tokens` the longest one tried; both None where none was.
    """

    step_s: Seconds
    attention_s: Seconds
    projections_s: Seconds
    mlp_s: Seconds
    all_reduce_s: Seconds
    contiguous_step_s: Seconds
    contiguous_attention_s: Seconds
    contiguous_projections_s: Seconds
    attention_share: Annotated[float, Field(ge=0, le=1)]
    gain: Annotated[float, Field(ge=-1, allow_inf_nan=False)]
    pays_from_tokens: int | None = None
    tried_to_tokens: int | None = None

    @property
    def gained(self) -> str:
        """`gains 2.71 %`, or `loses` as much: what the placement does of the step, in words."""
        percent = round(100 * self.gain, 2)
        return f"{'gains' if percent >= 0 else 'loses'} {abs(percent):.2f} %"


class Elsewhere(_Part):
    """The other deployment: this placement there, and at most what one made for it takes."""

    deployment: Deployment
    makespan_s: Seconds
    replanned_s: Seconds
    lower_bound_s: Seconds


class Nodes(_Part):
    """A plan shared out over nodes first, beside one replica of a node's plan on every node.

    `cross_node_copies` counts (KV group, node) pairs beyond one a group, `[layers]`. A replica
    serves its own step on `size` devices, so that `replicas` steps end every `replica_makespan_s`.
    """

    size: int
    cross_node_copies: list[int]
    replicas: int
    replica_makespan_s: Seconds
    replica_lower_bound_s: Seconds


class Plan(_Part):
    """A placement, its budgets, its predicted seconds and its certificate.

    `budgets` [layers][heads] tokens, whose pieces an executor chooses by `selection`; `kv_copies`
    and `divisions` [layers], `kv_bytes` [devices]; `devices` names the type of every device by
    index, `device_types` the axis of `costs`. Every device has `slots` KV slots a layer: those of
    the groups of which it has a share, padded; None where devices need not be alike. With several
    workloads, `workload`, `budgets`, `selection` and `costs` are the first's, which counts
    `weight`; `makespan_s` is their weighted mean or, with objective worst, the largest, and then
    the weights are the multipliers that prove `lower_bound_s`. `budget_gap`, of `least_error`: at
    most this share of the error of the budgets chosen (where a loss is asked for, of their total)
    is above the least there is, as proved before idle time is filled.
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
    divisions: list[int] = []
    kv_bytes: list[int]
    budgets: list[list[int]]
    selection: Selection = POOLED
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
    slots: Annotated[int | None, Field(ge=1, exclude_if=is_none)] = None
    padding: Annotated[Padding | None, Field(exclude_if=is_none)] = None
    weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    other_workloads: list[OtherWorkload] = []
    memory: Memory | None = None
    moving: Moving | None = None
    recovery: Annotated[Recovered | None, Field(exclude_if=is_none)] = None
    loss: Annotated[PromisedLoss | None, Field(exclude_if=is_none)] = None
    budget_gap: Annotated[float | None, Field(ge=0, le=1, exclude_if=is_none)] = None
    filled: Filled | None = None
    elastic: Elastic | None = None
    whole_step: Annotated[WholeStep | None, Field(exclude_if=is_none)] = None
    elsewhere: Elsewhere | None = None
    nodes: Nodes | None = None
    solve_s: Seconds = 0.0
    created_at: str = ""

    def identified(self) -> Self:
        """The same plan with its content id."""
        return self.model_copy(update={"id": content_id(self.model_dump(mode="json"))})

    @property
    def shares(self) -> Floats:
        """What every device does of every query head, `[layers, heads, devices]`."""
        return np.stack([shares.dense for shares in self.placed])

    @property
    def placed(self) -> list[Shares]:
        """What every device does of the query heads of every layer: the parts there are."""
        found = []
        for layer in self.layers:
            parts = [(h, e.device, e.share) for h, own in enumerate(layer.heads) for e in own]
            table = np.array(sorted(parts)).reshape(-1, 3)
            item, device = table[:, :2].T.astype(np.int64)
            shape = (len(layer.heads), len(self.devices))
            found.append(Shares(item, device, table[:, 2], *shape))
        return found

    def _repr_svg_(self) -> str:
        """The plan drawn, in a notebook."""
        from solver.report.picture import plan_picture

        return plan_picture(self)

    def save(self, path: Path | str) -> None:
        """Write the plan's JSON, whole or not at all."""
        write_atomically(Path(path), self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a plan's file; PlanError says what is wrong with it."""
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise PlanError(f"{path}: cannot be read: {error.strerror}") from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """Read a plan's JSON."""
        try:
            return cls.model_validate(parse_json(text))
        except JsonError as error:
            raise PlanError(f"{where}: {error}") from None
        except ValidationError as error:
            raise PlanError(f"{where}: {describe(error)}") from None


def content_id(plan: dict[str, Any]) -> str:
    """SHA-256 of a plan's canonical JSON without timings and timestamps."""
    content = {field: value for field, value in plan.items() if field not in UNTIMED}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
