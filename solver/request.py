"""What a plan is asked for with: the body of `POST /plan`, mirrored by `hplb plan`'s flags."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from profiles.cost.work import Deployment, Phase, Workload
from profiles.errors import HplbError, describe
from profiles.first_fault import FirstFault
from profiles.left_out import is_none
from profiles.model import ModelProfile
from profiles.sizes import MAX_CONTEXT, sizes_fault
from solver.budgets.options import BudgetOptions
from solver.plans import Plan
from solver.problem import Unit

Method = Literal["auto", "contiguous", "snake", "greedy", "greedy_equal", "cp_sat", "ilp"]
Retention = Literal["full", "budget"]
Copies = Literal["priced", "free"]
Objective = Literal["mean", "worst"]
Slots = Annotated[int, Field(ge=1, le=65536, strict=True)] | Literal["auto"]
BlockTokens = Literal[16, 32, 64, 128]
MAX_DEVICES = 4096
"""Of profiles that were not measured in blocks of their own."""
PATH_PATTERN = r"^[^\x00-\x1f]{1,4096}$"
"""A name, or on the command line a path: anything printable."""


class RequestError(HplbError):
    """A field of the request is wrong; named in the message."""


class _Options(FirstFault, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DeviceGroup(_Options):
    """Devices of one type, in index order."""

    type: str
    """A type of the catalogue, or a share of a GPU: `h200@0.5`."""
    count: Annotated[int, Field(ge=1, le=MAX_DEVICES)] = 1
    """How many of them."""


class MemoryOptions(_Options):
    """What a device may hold: weights (tensor parallel only) and K/V at a context and batch."""

    kv_retention: Retention = "full"
    """K/V that stays: of all keys (a layer with a window keeps that window), or where the method
    evicts, of the largest budget of the group's heads on that device."""
    limit_bytes: Annotated[int, Field(ge=1, le=2**50)] | None = None
    """Bytes of each device; unless given, its type's memory less `reserved_share`."""
    reserved_share: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.1
    """Share of a device's memory that is left for everything else."""
    context_tokens: Annotated[int, Field(ge=1, le=MAX_CONTEXT)] | None = None
    """Context that K/V is held of; the largest workload's unless given."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Sequences that K/V is held of; the largest workload's unless given."""


class PlacementOptions(_Options):
    """The rules a placement obeys."""

    unit: Unit = "head"
    """What is placed as one: a query head, or a KV head with all its query heads."""
    equal_counts: bool = False
    """The same number of units on every device, as stock tensor-parallel engines want."""
    divisible: bool = False
    """Heads may be shared by several devices: query rows of a prefill, keys of a decode."""
    max_copies: Annotated[int, Field(ge=1, le=MAX_DEVICES)] | None = None
    """Of divisible heads: at most so many devices share one; any number unless given."""
    slots: Annotated[Slots | None, Field(exclude_if=is_none)] = None
    """KV slots of every device, as an engine holds them whose ranks are all alike: a KV group, a
    copy or padding each, all projected and held. `auto`: as few as there can be, and more while
    that pays. Implies `deployment` tensor_parallel."""
    copies: Copies = "priced"
    """Whether every (KV group, device) pair costs its K/V projection or transfer, or nothing, as
    the paper has it: each group's one charge is then spread over its heads."""
    memory: MemoryOptions | None = None
    """Keep weights and K/V within the devices' memory; not looked at unless given."""
    node_size: Annotated[int, Field(ge=1, le=MAX_DEVICES)] | None = None
    """Of divisible heads: devices of a node; heads are shared out over nodes first."""
    current_plan: Annotated[str, Field(pattern=PATH_PATTERN)] | Plan | None = None
    """The plan in force, by id, path (command line only) or inline: moving away from it is
    priced."""
    amortise_steps: Annotated[int, Field(ge=1, le=10**9)] = 1000
    """Steps over which moving, paid once, is weighed."""

    @field_validator("slots", mode="before")
    @classmethod
    def _a_number_or_auto(cls, slots: Any) -> Any:
        """One fault for both kinds, not one for each."""
        whole = isinstance(slots, int) and not isinstance(slots, bool) and slots >= 1
        if slots is None or slots == "auto" or whole:
            return slots
        raise ValueError(f"{slots!r}, must be a whole number of at least 1, or 'auto'")

    @field_validator("current_plan")
    @classmethod
    def _named_by_its_content(cls, plan: str | Plan | None) -> str | Plan | None:
        """An inline plan's id is its content's, whatever id it came with: digests name it."""
        return plan.identified() if isinstance(plan, Plan) else plan

    def fault(self) -> str | None:
        """What does not go together, beginning with the field's name."""
        if not self.divisible and self.max_copies is not None:
            return "max_copies: is for divisible placements; whole heads are on one device"
        if not self.divisible and self.node_size is not None:
            return "node_size: is for divisible placements, which are shared out over nodes first"
        if self.divisible and self.unit != "head":
            return "divisible: it is heads that are divided; use unit 'head'"
        if self.divisible and self.equal_counts:
            return "divisible: engines that want equal_counts run whole heads; slots divide them"
        return None if self.slots is None else self._fault_of_slots()

    def _fault_of_slots(self) -> str | None:
        if self.equal_counts:
            return "slots: are equal counts with padding; leave equal_counts out"
        if self.copies == "free":
            return "slots: every device projects all of its slots; copies cannot be free"
        if self.node_size is not None:
            return "slots: are the same on every device; heads are not shared out over nodes first"
        if self.memory is not None and self.memory.kv_retention == "budget":
            return "slots: engines keep all keys of every slot; use kv_retention 'full'"
        return None


class WorkloadOptions(_Options):
    """One of several steps that the placement serves."""

    context_tokens: Annotated[int, Field(ge=1, le=MAX_CONTEXT)]
    """Context length in tokens."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 1
    """Sequences in the step."""
    phase: Phase = "prefill"
    """What the step does."""
    weight: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] = 1.0
    """How much it counts, relative to the others."""
    profile: Annotated[str, Field(pattern=PATH_PATTERN)] | ModelProfile | None = None
    """Another task's needs, of the same architecture; the request's profile unless given."""
    sample: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """One request of a profile made of samples, by index; their mean unless given."""


class PlanRequest(_Options):
    """A model profile, devices, one workload or several, and how to decide."""

    profile: Annotated[str, Field(pattern=PATH_PATTERN)] | ModelProfile
    """What each head needs: a name, a path (command line only) or the profile itself."""
    gpus: Annotated[int, Field(ge=1, le=MAX_DEVICES, strict=True)] | None = None
    """Number of devices of `device_type`; or give `devices`."""
    device_type: str = "h200"
    """Type of the `gpus`: of the catalogue, or a share of a GPU (`h200@0.5`)."""
    devices: Annotated[list[DeviceGroup], Field(min_length=1, max_length=MAX_DEVICES)] | None = None
    """Instead of `gpus`: unlike devices, in index order."""
    context_tokens: Annotated[int, Field(ge=1, le=MAX_CONTEXT)] | None = None
    """Context length in tokens; or give `workloads`."""
    phase: Phase = "prefill"
    """What the step does."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 1
    """Sequences in the step."""
    workloads: Annotated[list[WorkloadOptions], Field(min_length=1, max_length=64)] | None = None
    """Instead of `context_tokens`, `phase` and `batch_size`: several steps to place for at once."""
    objective: Objective = "mean"
    """Of several workloads: the least weighted mean of their makespans, or the least worst."""
    block_tokens: Annotated[BlockTokens | None, Field(exclude_if=is_none)] = None
    """Query rows that share a list; unless given, as the profile was measured, else 64."""
    piece_tokens: Annotated[BlockTokens | None, Field(exclude_if=is_none)] = None
    """Keys that lists, budgets and pages count in; divides a block. Unless given, a block where
    `block_tokens` is given, else as the profile was measured."""
    deployment: Deployment = "disaggregated"
    """Where projections are computed: on other devices (a K/V transfer for every group and
    device), or beside the heads; beside them where `placement.slots` is given."""
    budget: BudgetOptions = BudgetOptions()
    """How many tokens each head may attend to."""
    placement: PlacementOptions = PlacementOptions()
    """The rules the placement obeys."""
    method: Method = "auto"
    """How to place: `auto` takes quick starts and improves them until proved or out of time."""
    time_limit_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10.0
    """Seconds for the whole plan: search, rounding and figures."""
    tolerance: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 1e-3
    """Gap at which a plan counts as optimal."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Search repeatably: one worker, effort counted in steps instead of seconds, so that only
    the time limit can make a difference."""
    fresh: bool = False
    """Solve anew although the same request was answered before."""

    @model_validator(mode="before")
    @classmethod
    def _slots_project(cls, data: Any) -> Any:
        """With slots, `deployment` unless given: what is projected on other devices needs none."""
        placement = data.get("placement") if isinstance(data, Mapping) else None
        slots = (
            placement.get("slots")
            if isinstance(placement, Mapping)
            else getattr(placement, "slots", None)
        )
        return data if slots is None else {"deployment": "tensor_parallel", **data}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.gpus is None) == (self.devices is None):
            raise ValueError("gpus: give gpus (with device_type), or devices instead")
        if sum(group.count for group in self.devices or []) > MAX_DEVICES:
            raise ValueError(f"devices: more than {MAX_DEVICES} devices")
        if (self.context_tokens is None) == (self.workloads is None):
            raise ValueError("context_tokens: give context_tokens, or workloads instead")
        longest = max(workload.context_tokens for workload in self.steps)
        if self.budget.tokens is not None and self.budget.tokens > longest:
            raise ValueError(
                f"budget.tokens: {self.budget.tokens} is above context_tokens ({longest})"
            )
        if self.block_tokens is not None and self.piece_tokens is not None:
            fault = sizes_fault(self.block_tokens, self.piece_tokens)
            if fault is not None:
                raise ValueError(fault)
        if self.budget.fill and len(self.steps) > 1:
            raise ValueError("budget.fill: spends the idle time of one workload, not of several")
        if self.budget.fill and self.placement.divisible:
            raise ValueError(
                "budget.fill: heads are cut where their budgets say; fill whole heads only"
            )
        for name, options in (("budget", self.budget), ("placement", self.placement)):
            fault = options.fault()
            if fault is not None:
                raise ValueError(f"{name}.{fault}")
        if self.placement.slots is not None and self.deployment != "tensor_parallel":
            raise ValueError("placement.slots: are projected where heads are: tensor_parallel")
        if self.placement.divisible and self.method != "auto":
            raise ValueError(f"method: {self.method!r} cannot divide heads; use 'auto'")
        if self.placement.node_size is not None and len(set(self.device_types)) > 1:
            raise ValueError("placement.node_size: nodes are of one device type")
        size = self.placement.node_size
        if size is not None and len(self.device_types) % size:
            raise ValueError(
                f"placement.node_size: {size} does not divide the {len(self.device_types)} devices"
            )
        return self

    @classmethod
    def checked(cls, **fields: Any) -> Self:
        """A request of these fields; RequestError names what is wrong with one."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise RequestError(describe(error)) from None

    def resolved(
        self, profile_of: Callable[[str], ModelProfile], plan_of: Callable[[str], Plan]
    ) -> Self:
        """The same request with what it names looked up and inline: so it cannot be another's."""

        def own(profile: str | ModelProfile) -> ModelProfile:
            return profile_of(profile) if isinstance(profile, str) else profile

        update: dict[str, Any] = {"profile": own(self.profile)}
        if self.workloads is not None:
            update["workloads"] = [
                step
                if step.profile is None
                else step.model_copy(update={"profile": own(step.profile)})
                for step in self.workloads
            ]
        current = self.placement.current_plan
        if isinstance(current, str):
            current = plan_of(current)
            update["placement"] = self.placement.model_copy(update={"current_plan": current})
        return self.model_copy(update=update).settled()

    def settled(self) -> Self:
        """The same with a budget policy that all profiles have what it takes for.

        Raises RequestError where what is asked of budgets does not fit it.
        """
        each = [self.budget.settled(profile) for profile in self.profiles]
        budget = next((own for own in each if own.policy == "profile"), each[0])
        fault = budget.fault()
        if fault is not None:
            raise RequestError(f"budget.{fault}")
        return self.model_copy(update={"budget": budget})

    @property
    def profiles(self) -> list[ModelProfile]:
        """The profile of every step of a resolved request."""
        found = []
        for step in self.steps:
            profile = step.profile or self.profile
            if isinstance(profile, str):
                raise RequestError(f"profile: {profile!r} has not been looked up")
            found.append(profile)
        return found

    @property
    def current_plan(self) -> Plan | None:
        """The plan in force that a resolved request gives."""
        current = self.placement.current_plan
        if isinstance(current, str):
            raise RequestError(f"placement.current_plan: {current!r} has not been looked up")
        return current

    @property
    def steps(self) -> list[WorkloadOptions]:
        """The workloads to place for; one unless `workloads` is given."""
        if self.workloads is not None:
            return self.workloads
        assert self.context_tokens is not None  # checked above
        return [
            WorkloadOptions(
                context_tokens=self.context_tokens, batch_size=self.batch_size, phase=self.phase
            )
        ]

    @property
    def device_types(self) -> list[str]:
        """The type of every device, by index."""
        if self.devices is None:
            return [self.device_type] * (self.gpus or 0)
        return [group.type for group in self.devices for _ in range(group.count)]

    def workload_of(self, step: WorkloadOptions, block_tokens: int, piece_tokens: int) -> Workload:
        """A step as the cost model counts it."""
        return Workload(
            context_tokens=step.context_tokens,
            phase=step.phase,
            batch_size=step.batch_size,
            deployment=self.deployment,
            block_tokens=block_tokens,
            piece_tokens=piece_tokens,
        )

    def digest(self, profile_digests: list[str], rates_versions: list[str]) -> str:
        """Names the request: profiles' content, options and cost models, but not `fresh`.

        Both lists go by workload.
        """
        named: Any = {
            "profile": True,
            "fresh": True,
            "workloads": {"__all__": {"profile"}},
            "placement": {"current_plan"},
        }
        options = self.model_dump(mode="json", exclude=named)
        current = self.placement.current_plan
        options["placement"]["current_plan"] = current.id if isinstance(current, Plan) else current
        content = {"options": options, "profiles": profile_digests, "rates": rates_versions}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
