"""Health, metrics and the version."""

import platform
from importlib.metadata import version

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.client.bodies import Health, ServiceVersion
from api.client.wire import VERSION
from api.problems import Problem, refusals
from api.service import ServiceDep

WELL = Health().model_dump_json()

health = APIRouter(tags=["operations"])
router = APIRouter(tags=["operations"])


@health.head("/healthz", include_in_schema=False)
@health.get("/healthz", response_model=Health)
async def check_health() -> Response:
    """The process is up."""
    return Response(WELL, media_type="application/json")


@health.head("/readyz", include_in_schema=False)
@health.get("/readyz", response_model=Health, responses=refusals(503))
def check_ready(service: ServiceDep) -> Health:
    """The database answers, and keeps what is written."""
    fault = service.readiness.fault()
    if fault is not None:
        raise Problem(503, fault, headers={"Retry-After": "1"})
    return Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_metrics(service: ServiceDep) -> Response:
    """Prometheus exposition."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", response_model=ServiceVersion)
def get_version() -> ServiceVersion:
    """Which release this is."""
    return ServiceVersion(
        version=version("hplb"),
        api=[VERSION],
        python=platform.python_version(),
        ortools=version("ortools"),
    )
