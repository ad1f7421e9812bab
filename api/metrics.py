"""Prometheus metrics, one registry per service. Gauges are read from the database when scraped."""

import time
from collections.abc import Callable, Iterable
from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.deployments.plausible import REASONS

SOLVE_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
DATABASE_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30)
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
Figures = Callable[[], Iterable[Metric]]


class _Scraped(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        return self._figures()

    def describe(self) -> Iterable[Metric]:
        # Registering must not read the database.
        return ()


class Metrics:
    """What the service counts as it goes."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "hplb_http_requests",
            "HTTP requests answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "hplb_http_request_seconds",
            "Time to answer; long polls include their wait.",
            ["method", "route"],
            registry=self._registry,
        )
        self.solve_seconds = Histogram(
            "hplb_plan_solve_seconds",
            "Time to make a plan.",
            ["method", "status"],
            buckets=SOLVE_BUCKETS,
            registry=self._registry,
        )
        self.batches = Counter(
            "hplb_measurement_batches",
            "Measurement batches by what became of them.",
            ["outcome"],
            registry=self._registry,
        )
        self.samples_rejected = Counter(
            "hplb_samples_rejected",
            "Measured samples that are not believed, by why not.",
            ["reason"],
            registry=self._registry,
        )
        for reason in REASONS:
            self.samples_rejected.labels(reason)
        self.database_seconds = Histogram(
            "hplb_database_seconds",
            "Time of a statement of a reading or a writing transaction, and of a commit.",
            ["operation"],
            buckets=DATABASE_BUCKETS,
            registry=self._registry,
        )
        self.refits = Counter(
            "hplb_cost_model_refits",
            "Times the rates of a device type and phase changed.",
            ["device", "phase"],
            registry=self._registry,
        )
        self.moves = Counter(
            "hplb_deployment_moves",
            "New generations that the refine loop started.",
            ["deployment"],
            registry=self._registry,
        )

        self.drift_raises = Counter(
            "hplb_recovery_drift_raises",
            "Times that heads were found to recover less than promised.",
            ["deployment"],
            registry=self._registry,
        )

    def observe_database(self, operation: str, seconds: float) -> None:
        """Note what the database took for something."""
        self.database_seconds.labels(operation).observe(seconds)

    def scrape(self, figures: Figures) -> None:
        """Take these at every scrape."""
        self._registry.register(_Scraped(figures))

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)


class HttpMetrics:
    """ASGI middleware: counts and times requests under their route's template."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics
        # Looked up by their labels anew, they cost more than all that is counted with them.
        self._of = lru_cache(maxsize=None)(self._labelled)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            # Paths of no route, and methods of none, are not labels: anyone can make up any number.
            route = getattr(scope.get("route"), "path", "none")
            known = route != "none" and scope["method"] in METHODS
            method = scope["method"] if known else "any"
            requests, seconds = self._of(method, route, status)
            requests.inc()
            seconds.observe(time.monotonic() - started)

    def _labelled(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        requests = self.metrics.requests.labels(method, route, str(status))
        return requests, self.metrics.request_seconds.labels(method, route)
