"""The bodies of docs/http.md that an executor sends and receives."""

from typing import Annotated, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator

from solver.plans import Plan, content_id

Index = Annotated[int, Field(ge=0)]
Units = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _is_missing(value: object) -> bool:
    """Whether to leave a field out: what an older peer does not know, it is not sent in vain."""
    return value is None


Key = tuple[str, int, str]
"""Deployment, generation and plan id: what a measurement is a measurement of."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Active(_Body):
    """The generation of a deployment that a node has checkpointed and runs."""

    deployment: str
    generation: Index


class Registration(_Body):
    """`POST /nodes`: `devices` are the types of the local devices, in order."""

    node_id: str
    boot_id: str
    devices: list[str]
    backend: str
    versions: dict[str, str]


class Renewal(_Body):
    """`PUT /nodes/{id}/lease`."""

    boot_id: str
    active: Active | None
    error: str | None


class Lease(_Body):
    """The answer to both: renew within `lease_s`."""

    node_id: str
    lease_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class KnownNode(BaseModel):
    """A node in the planner's list, by name."""

    node_id: str


class KnownNodes(BaseModel):
    """`GET /nodes`: every node that ever registered."""

    nodes: list[KnownNode]


class Assignment(_Body):
    """What a node is to run: `devices[i]` is the plan's device that local device i plays.

    After `rounds` rounds, one more every `every_s` seconds, where given.
    """

    deployment: str
    generation: Index
    plan_id: str
    plan: Plan
    devices: Annotated[list[Index], Field(min_length=1)]
    layers: Annotated[list[Index], Field(min_length=1)]
    rounds: Annotated[int, Field(ge=1)]
    every_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False, exclude_if=_is_missing)] = (
        None
    )

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


class HeadReport(_Body):
    """What a device's blocks held of a query head's attention.

    `rows` are the query rows of the head that the device computed, `tiles` their (query block, key
    block) products, `recovery` the share of attention mass these held, a mean over a few rows.
    """

    head: Index
    rows: Count
    tiles: Count
    recovery: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Sample(_Body):
    """One device's share of one layer, timed: `work` in units of `FEATURES`.

    `heads` only where a model's own activations were computed: recovery of random tensors says
    nothing.
    """

    layer: Index
    device: Index
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    work: dict[str, Units]
    heads: Annotated[list[HeadReport] | None, Field(exclude_if=_is_missing)] = None


class Batch(_Body):
    """`POST /measurements`: one round; `batch_id` makes sending it twice harmless."""

    batch_id: str = Field(default_factory=lambda: str(uuid4()))
    deployment: str
    plan_id: str
    generation: Index
    node_id: str
    timing: Literal["alone", "concurrent"] = "alone"
    samples: Annotated[list[Sample], Field(min_length=1)]

    @property
    def key(self) -> Key:
        """What it is a measurement of."""
        return self.deployment, self.generation, self.plan_id


class Receipt(_Body):
    """What the planner made of a batch; `rejected` samples broke the rules of physics."""

    batch_id: str
    duplicate: bool
    accepted: int
    rejected: int
