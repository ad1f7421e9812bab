"""Makes a plan and keeps it: as the answer to its request, unless its solve was cut short."""

import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import IntegrityError

from api.errors import Problem
from api.lookup import Task
from api.metrics import Metrics
from api.solve import Ended, Solve
from api.solve_schemas import SolveEnd
from api.store import plans
from api.store.database import Database
from solver.planning.planner import make_plan
from solver.plans import Plan

log = structlog.get_logger()


class Maker:
    """Called from the solve's own thread."""

    def __init__(self, database: Database, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock

    def make(self, solve: Solve, task: Task) -> Ended:
        """The plan, kept.

        Raises HplbError for what cannot be planned, Problem where the solve was abandoned.
        """
        started = time.monotonic()
        plan = make_plan(
            task.resolved,
            task.rates,
            on_progress=solve.progressed,
            cancel=solve.cancelled,
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

    def _keep(self, task: Task, plan: Plan, answers: str | None) -> None:
        try:
            self._keep_once(task, plan, answers)
        except IntegrityError:
            # Two solves of one plan ended at once: now the other one's rows are there to be found.
            self._keep_once(task, plan, answers)

    def _keep_once(self, task: Task, plan: Plan, answers: str | None) -> None:
        with self._database.write() as session:
            plans.keep(session, plan, task.request, answers, self._clock())


def abandoned() -> Problem:
    """What whoever still listens to an abandoned solve is told."""
    return Problem(503, "the solve was cancelled", headers={"Retry-After": "1"})
