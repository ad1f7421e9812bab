"""What the routes work with, made once per application."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from api.deployments.board import AssignmentBoard
from api.deployments.leases import Leases
from api.deployments.views import gauges
from api.loop.elected import Elected
from api.loop.refiner import Refiner
from api.metrics import Metrics
from api.notify import Notifier
from api.settings import Settings
from api.solves.answer import Answerer
from api.store.database import Database
from profiles.model import NAME_PATTERN

Clock = Callable[[], float]


@dataclass(frozen=True)
class Service:
    """The parts, and the clock that all of them go by."""

    settings: Settings
    database: Database
    metrics: Metrics
    notifier: Notifier
    leases: Leases
    board: AssignmentBoard
    answerer: Answerer
    refiner: Refiner
    elected: Elected
    clock: Clock

    @classmethod
    def make(cls, settings: Settings, database: Database, clock: Clock = time.time) -> "Service":
        """Wire the parts together."""
        metrics, notifier = Metrics(), Notifier()
        leases = Leases(settings.lease_s, clock)
        metrics.scrape(lambda: gauges(database, leases))
        answerer = Answerer(
            database, metrics, settings.solver_workers, settings.solver_queue, clock
        )
        refiner = Refiner(
            database,
            answerer,
            notifier,
            metrics,
            settings.policy,
            settings.drift,
            settings.sample_window,
            clock,
        )
        elected = Elected(database, refiner, metrics, settings.retention, clock)
        board = AssignmentBoard(database, notifier)
        return cls(
            settings, database, metrics, notifier, leases, board, answerer, refiner, elected, clock
        )

    def stop(self) -> None:
        """Cancel solves, end long polls; safe to call twice and from a signal handler."""
        self.notifier.close()
        self.answerer.stop()
        self.elected.stop()
        self.refiner.stop()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
NamePath = Annotated[str, Path(pattern=NAME_PATTERN)]
