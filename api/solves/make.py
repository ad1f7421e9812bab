"""Makes a plan and keeps it: as the answer to its request, unless its solve was cut short."""

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import structlog

from api.client.bodies import SolveEnd
from api.metrics import Metrics
from api.solves.job import Ended, SolveJob, abandoned
from api.solves.resolve import ResolvedRequest
from api.solves.solver_process import Solver
from api.solves.worker import MadePlan
from api.store import plan_store
from api.store.database import Database

log = structlog.get_logger()

NEWEST = 16
"""Plans whose JSON is still there; those made before them are read from the store."""


class PlanMaker:
    """Called from the solve's own thread."""

    def __init__(self, database: Database, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._lock = Lock()
        self._newest: OrderedDict[str, str] = OrderedDict()

    def make(self, solve: SolveJob, resolved: ResolvedRequest, solver: Solver) -> Ended:
        """The plan, kept.

        Raises HplbError for what cannot be planned, Problem where nothing came of the solve.
        """
        started = time.monotonic()
        made = solver.make_plan(resolved, solve)
        fate = solve.seal()
        if fate == "abandoned":
            raise abandoned()
        took_s = time.monotonic() - started
        plan_id, status = made.summary["id"], made.summary["status"]
        self._metrics.solve_seconds.labels(made.summary["solver"], status).observe(took_s)
        log.info("plan_made", plan=plan_id, status=status, solve_s=took_s, fate=fate)
        body = self._keep(resolved, made, resolved.digest if fate == "whole" else None)
        with self._lock:
            self._newest[plan_id] = body
            self._newest.move_to_end(plan_id)
            if len(self._newest) > NEWEST:
                self._newest.popitem(last=False)
        end = SolveEnd.model_validate({**made.summary, "plan_id": plan_id})
        return Ended(end, cut_short=fate == "cut_short")

    def find(self, plan_id: str) -> str | None:
        """A plan's JSON from memory, where it is one of the newest."""
        with self._lock:
            return self._newest.get(plan_id)

    def forget(self, plan_id: str) -> None:
        """A plan is gone."""
        with self._lock:
            self._newest.pop(plan_id, None)

    def _keep(self, resolved: ResolvedRequest, made: MadePlan, answers: str | None) -> str:
        now = self._clock()
        return self._database.written(
            lambda session: plan_store.keep(
                session, made.body, made.summary, resolved.request, answers, now
            )
        )
