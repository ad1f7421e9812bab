"""The planner's client: what a program needs that asks for plans and makes them live."""

from api.client.bodies import DeploymentRequest, Incumbent
from api.client.planner_client import AsyncPlannerClient, PlannerClient
from api.client.planner_errors import (
    BadRequestError,
    ConflictError,
    KeyRefusedError,
    NotFoundError,
    PlannerAwayError,
    PlannerError,
    RefusedError,
)

__all__ = [
    "AsyncPlannerClient",
    "BadRequestError",
    "ConflictError",
    "DeploymentRequest",
    "Incumbent",
    "KeyRefusedError",
    "NotFoundError",
    "PlannerAwayError",
    "PlannerClient",
    "PlannerError",
    "RefusedError",
]
