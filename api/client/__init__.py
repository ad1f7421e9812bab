"""The planner's client: what a program needs that asks for plans and makes them live."""

from api.client.bodies import DeploymentRequest
from api.client.planner_client import PlannerClient
from api.client.planner_errors import PlannerAwayError, PlannerError, RefusedError

__all__ = [
    "DeploymentRequest",
    "PlannerAwayError",
    "PlannerClient",
    "PlannerError",
    "RefusedError",
]
