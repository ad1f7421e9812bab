"""Makes a plan and keeps it: as the answer to its request, unless its solve was cut short."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import structlog

from api.client.bodies import SolveEnd
from api.metrics import Metrics
from api.problems import Problem
from api.solves.job import Ended, SolveJob
from api.solves.resolve import ResolvedRequest
from api.store import plan_store
from api.store.database import Database
from api.store.session import ConflictError
from solver.planning.planner import make_plan
from solver.plans import Plan

log = structlog.get_logger()

NEWEST = 16
"""Plans that are still there whole; those made before them are read from the store."""


@dataclass(frozen=True, eq=False)
class Made:
    """A plan, and its JSON as it is stored."""

    plan: Plan
    body: str


class PlanMaker:
    """Called from the solve's own thread."""

    def __init__(self, database: Database, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._lock = Lock()
        self._newest: OrderedDict[str, Made] = OrderedDict()

    def make(self, solve: SolveJob, resolved: ResolvedRequest) -> Ended:
        """The plan, kept.

        Raises HplbError for what cannot be planned, Problem where the solve was abandoned.
        """
        started = time.monotonic()
        plan = make_plan(
            resolved.whole,
            resolved.rates,
            on_progress=solve.report_progress,
            cancel=solve.cancelled,
        )
        fate = solve.seal()
        if fate == "abandoned":
            raise abandoned()
        self._metrics.observe_solve(plan, time.monotonic() - started)
        log.info("plan_made", plan=plan.id, status=plan.status, solve_s=plan.solve_s, fate=fate)
        made = Made(plan, self._keep(resolved, plan, resolved.digest if fate == "whole" else None))
        with self._lock:
            self._newest[plan.id] = made
            self._newest.move_to_end(plan.id)
            if len(self._newest) > NEWEST:
                self._newest.popitem(last=False)
        end = SolveEnd(
            plan_id=plan.id,
            status=plan.status,
            makespan_s=plan.makespan_s,
            lower_bound_s=plan.lower_bound_s,
            gap=plan.gap,
        )
        return Ended(end, cut_short=fate == "cut_short")

    def find(self, plan_id: str) -> Made | None:
        """A plan from memory, where it is one of the newest."""
        with self._lock:
            return self._newest.get(plan_id)

    def forget(self, plan_id: str) -> None:
        """A plan is gone."""
        with self._lock:
            self._newest.pop(plan_id, None)

    def _keep(self, resolved: ResolvedRequest, plan: Plan, answers: str | None) -> str:
        try:
            return self._keep_once(resolved, plan, answers)
        except ConflictError:
            # Two solves of one plan ended at once: now the other one's rows are there to be found.
            return self._keep_once(resolved, plan, answers)

    def _keep_once(self, resolved: ResolvedRequest, plan: Plan, answers: str | None) -> str:
        with self._database.write() as session:
            return plan_store.keep(session, plan, resolved.request, answers, self._clock())


def abandoned() -> Problem:
    """What whoever still listens to an abandoned solve is told."""
    return Problem(503, "the solve was cancelled", headers={"Retry-After": "1"})
