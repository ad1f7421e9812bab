"""The application: routes, middleware, and a service whose life is the application's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from api import problems
from api.allowed_hosts import AllowedHosts
from api.auth import BearerKey
from api.document import complete, operation_id
from api.metrics import HttpMetrics
from api.request_log import QUIET, RequestLog
from api.routes import (
    deployments,
    measurements,
    nodes,
    operations,
    page,
    pictures,
    plans,
    profiles,
    solves,
)
from api.service import Service
from api.settings import Settings
from api.store.database import Database
from api.versioned import Versioned

TRACED = {
    "auto_configure": True,
    "operation_spans": False,
    "exclude": lambda scope: scope["path"] in QUIET,
}
"""FastAPI's own OpenTelemetry, which exports where the standard OTEL_ variables name an endpoint
and `hplb[otel]` is installed; probes are not traced."""
TELEMETRY: dict[str, Any] = {"telemetry": TRACED} if find_spec("fastapi.telemetry") else {}
"""Nothing where FastAPI is older than `hplb[otel]` asks for: vLLM 0.32 wants one below 0.137."""
LAST_S = 10.0
"""For threads that write something down as the service stops."""


class Application(FastAPI):
    """FastAPI with a completed OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        return self.openapi_schema or complete(super().openapi())


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await run_in_threadpool(service.start)
    yield
    service.stop()
    await run_in_threadpool(service.join, LAST_S)
    service.database.close()


def create_app(settings: Settings | None = None, service: Service | None = None) -> Application:
    """The application on `settings`, or on a service that is made already.

    Raises StoreError where the database cannot be used.
    """
    if service is None:
        settings = settings or Settings()
        service = Service.make(settings, Database.open(settings.database_url))
    app = Application(
        title="HPLB",
        summary="Decides which GPU computes which attention head.",
        version=version("hplb"),
        generate_unique_id_function=operation_id,
        lifespan=_lifespan,
        **TELEMETRY,
        docs_url=None,  # the page has its own, which loads nothing from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    problems.install(app)
    # Each request is held against all routes before its own: these two are asked for most.
    app.include_router(operations.health)
    app.include_router(plans.making)
    for part in (plans, solves, pictures, profiles, nodes, deployments, measurements, operations):
        app.include_router(part.router)
    app.include_router(page.router)
    app.mount(page.FILES, page.PageFiles(directory=page.FOLDER))
    app.add_middleware(BearerKey, keyring=service.keyring)
    hosts = service.settings.allowed_hosts
    app.add_middleware(AllowedHosts, names=hosts, keyring=service.keyring)
    app.add_middleware(HttpMetrics, metrics=service.metrics)
    app.add_middleware(RequestLog)
    app.add_middleware(Versioned)
    return app
