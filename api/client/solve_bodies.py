"""Bodies of the HTTP interface that tell of a solve: accepted, under way, event by event, ended."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


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
    """Data of the events `done` and `cancelled`: the plan that was kept."""

    model_config = ConfigDict(frozen=True)

    plan_id: str
    status: Literal["optimal", "feasible"]
    makespan_s: float
    lower_bound_s: float
    gap: float
