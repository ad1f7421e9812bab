"""Makes a plan and keeps it: as the answer to its request, unless its solve was cut short."""

import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import IntegrityError

from api.client.bodies import SolveEnd
from api.metrics import Metrics
from api.problems import Problem
from api.solves.job import Ended, SolveJob
from api.solves.resolve import ResolvedRequest
from api.store import plan_store
from api.store.database import Database
from solver.plan import Plan
from solver.planner import make_plan

log = structlog.get_logger()


class Maker:
    """Called from the solve's own thread."""

    def __init__(self, database: Database, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock

    def make(self, solve: SolveJob, task: ResolvedRequest) -> Ended:
        """The plan, kept.

        Raises HplbError for what cannot be planned, Problem where the solve was abandoned.
        """
        started = time.monotonic()
        first, *others = task.known
        plan = make_plan(
            task.request,
            first.profile,
            first.rates,
            on_progress=solve.progressed,
            cancel=solve.cancelled,
            others=others,
            current=task.current,
        )
        fate = solve.seal()
        if fate == "abandoned":
            raise abandoned()
        self._metrics.solved(plan, time.monotonic() - started)
        log.info("plan_made", plan=plan.id, status=plan.status, solve_s=plan.solve_s, fate=fate)
        self._keep(task, plan, task.digest if fate == "whole" else None)
        end = SolveEnd(
            plan_id=plan.id,
            status=plan.status,
            makespan_s=plan.makespan_s,
            lower_bound_s=plan.lower_bound_s,
            gap=plan.gap,
        )
        return Ended(end, cut_short=fate == "cut_short")

    def _keep(self, task: ResolvedRequest, plan: Plan, answers: str | None) -> None:
        try:
            self._keep_once(task, plan, answers)
        except IntegrityError:
            # Two solves of one plan ended at once: now the other one's rows are there to be found.
            self._keep_once(task, plan, answers)

    def _keep_once(self, task: ResolvedRequest, plan: Plan, answers: str | None) -> None:
        with self._database.write() as session:
            plan_store.keep(session, plan, task.request, answers, self._clock())


def abandoned() -> Problem:
    """What whoever still listens to an abandoned solve is told."""
    return Problem(503, "the solve was cancelled", headers={"Retry-After": "1"})
