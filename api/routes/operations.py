"""Health and metrics."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.client.bodies import Health
from api.problems import Problem, refusals
from api.service import ServiceDep

health = APIRouter(tags=["operations"])
router = APIRouter(tags=["operations"])


@health.head("/healthz", include_in_schema=False)
@health.get("/healthz", response_model=Health)
async def healthy() -> Health:
    """The process is up."""
    return Health()


@health.head("/readyz", include_in_schema=False)
@health.get("/readyz", response_model=Health, responses=refusals(503))
def ready(service: ServiceDep) -> Health:
    """The database answers, and keeps what is written."""
    fault = service.readiness.fault()
    if fault is not None:
        raise Problem(503, fault, headers={"Retry-After": "1"})
    return Health()


@router.get("/metrics", response_class=Response)
def metrics(service: ServiceDep) -> Response:
    """Prometheus exposition."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
