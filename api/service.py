"""What the routes work with, made once per application."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from api.auth import Keyring
from api.body_limit import BodiesHeld
from api.body_reader import BodyReader
from api.deployments.board import AssignmentBoard
from api.deployments.leases import Leases
from api.loop.elected import Elected
from api.loop.refiner import Refiner
from api.metrics import Metrics
from api.notify import Notifier
from api.scraped import scraped
from api.settings import Settings
from api.solves.answer import Answerer
from api.solves.limits import SolveLimits
from api.solves.solve_pool import SolvePool
from api.solves.solver_process import Solver, SolverProcess
from api.store.database import Database
from api.store.readiness import Readiness
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
    body_reader: BodyReader
    bodies_held: BodiesHeld
    keyring: Keyring
    readiness: Readiness
    clock: Clock

    @classmethod
    def make(
        cls,
        settings: Settings,
        database: Database,
        clock: Clock = time.time,
        make_solver: Callable[[], Solver] | None = None,
    ) -> "Service":
        """Wire the parts together; `make_solver` makes what solves, worker processes unless given.

        No process is started before the application's life begins.
        """
        metrics, notifier = Metrics(), Notifier()
        database.watch(metrics.observe_database)
        leases = Leases(settings.lease_s, clock)
        metrics.scrape(lambda: scraped(database, leases, clock()))
        pool = SolvePool(
            make_solver or (lambda: SolverProcess(settings.solver_memory_bytes)),
            settings.solver_workers,
            settings.solver_queue,
            settings.client_solves,
        )
        limits = SolveLimits(settings.max_time_limit_s, settings.max_solve_size)
        answerer = Answerer(database, metrics, pool, limits, clock)
        refiner = Refiner(
            database,
            answerer,
            notifier,
            metrics,
            settings.policy,
            settings.drift,
            settings.sample_window,
            settings.refine_time_limit_s,
            clock,
        )
        elected = Elected(database, refiner, metrics, settings.retention, clock)
        board = AssignmentBoard(database, notifier)
        own = settings.api_key.get_secret_value() if settings.api_key else None
        return cls(
            settings,
            database,
            metrics,
            notifier,
            leases,
            board,
            answerer,
            refiner,
            elected,
            BodyReader(),
            BodiesHeld(),
            Keyring(database, own),
            Readiness(database, settings.database_url),
            clock,
        )

    def start(self) -> None:
        """Start the workers, and take up what the last process left."""
        self.answerer.start()
        self.elected.start()

    def stop(self) -> None:
        """End solves and long polls; safe to call twice."""
        self.notifier.close()
        self.elected.stop()
        self.refiner.stop()
        self.answerer.stop()
        self.body_reader.stop()

    def join(self, timeout_s: float) -> None:
        """Wait, once stopped, for its threads: none may be at work when the interpreter ends."""
        self.answerer.join(timeout_s)
        self.refiner.join(timeout_s)
        self.elected.join(timeout_s)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
NamePath = Annotated[str, Path(pattern=NAME_PATTERN)]
