"""Answers a plan request: from the store, or by a solve in a bounded pool off the event loop.

Equal requests share one solve. It goes on while somebody waits for it or has asked to be answered
later; cut short, its best plan so far is kept but answers no request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import structlog
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.errors import Problem, as_problem, not_found
from api.lookup import Task, look_up, with_profile
from api.making import Maker, abandoned
from api.metrics import Metrics
from api.pool import Pool
from api.registry import Registry
from api.solve import Ended, Outcome, Solve
from api.store import plans
from api.store.database import Database
from profiles.model import ModelProfile
from solver.plans import Plan
from solver.request import PlanRequest

log = structlog.get_logger()

RETRY_AFTER_S = 2
LOOK_FOR_CLIENT_S = 0.5


@dataclass(frozen=True)
class Answer:
    """A stored plan: its id and its JSON."""

    plan_id: str
    body: str


class Planning:
    """At most `workers` solves at a time and `queue` waiting; more are turned away with 503."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        workers: int,
        queue: int,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._maker = Maker(database, metrics, clock)
        self._pool = Pool(workers, queue)
        self._solves = Registry(clock)
        self._lock = Lock()
        self._stopping = False
        metrics.scrape(self._pool.gauges)

    async def answer(self, request: PlanRequest, client: Request) -> Answer:
        """The plan, however long it takes; a solve that no client waits for any more is ended."""
        task, stored = await run_in_threadpool(self._look_up, request)
        if stored is not None:
            return stored
        solve = self._join(task, detached=False)
        try:
            while not await solve.ended_within(LOOK_FOR_CLIENT_S):
                if self._stopping or await client.is_disconnected():
                    raise abandoned()
        finally:
            if solve.leave():
                self._abandon(solve)
        return await run_in_threadpool(self._answer_of, solve)

    async def answer_or_solve(self, request: PlanRequest, wait_s: float) -> Answer | Solve:
        """The plan if it is there within `wait_s`, else the solve, which goes on by itself."""
        task, stored = await run_in_threadpool(self._look_up, request)
        if stored is not None:
            return stored
        solve = self._join(task, detached=True)
        if await solve.ended_within(wait_s):
            return await run_in_threadpool(self._answer_of, solve)
        return solve

    def again(self, plan_id: str, corrected: ModelProfile | None = None) -> Plan:
        """Answer a stored plan's request once more, under the rates now in force.

        With a `corrected` profile it takes the place of the one the plan was made from.
        """
        with self._database.read() as session:
            request = plans.request_of(session, plan_id)
            if corrected is not None:
                made_from = plans.load(session, plan_id).profile.digest
                request = with_profile(request, made_from, corrected)
        task, stored = self._look_up(request)
        if stored is None:
            solve = self._join(task, detached=True)
            solve.ended.wait()
            if isinstance(solve.outcome, Ended) and solve.outcome.cut_short:
                raise Problem(409, "the solve was cancelled")
            stored = self._answer_of(solve)
        return Plan.parse(stored.body, "stored plan")

    def find(self, digest: str) -> Solve | None:
        """The newest solve of a request, while it can still be asked about."""
        return self._solves.find(digest)

    def stored(self, name: str) -> Answer | Solve:
        """What a plan's or a solve's id stands for: a plan, or a solve that is under way.

        Raises Problem: 404 where it stands for nothing, the solve's own where that failed.
        """
        solve = self._solves.find(name)
        if solve is not None:
            return solve if solve.outcome is None else self._answer_of(solve)
        with self._database.read() as session:
            answer = _load(session, plans.find_answer(session, name) or name)
        if answer is None:
            raise not_found("plan or solve", name)
        return answer

    async def cut_short(self, digest: str) -> Answer:
        """End a solve with its best plan so far; one that has ended stays what it is.

        Raises Problem: 404 for what is no solve, 409 where its turn never came.
        """
        solve = self._solves.find(digest)
        if solve is None:
            return await run_in_threadpool(self._answered, digest)
        solve.cancel("cut_short")
        self._withdraw(
            solve, Problem(409, "the solve was cancelled before its turn came: there is no plan")
        )
        while not await solve.ended_within(LOOK_FOR_CLIENT_S):
            if self._stopping:
                raise abandoned()
        return await run_in_threadpool(self._answer_of, solve)

    def stop(self) -> None:
        """Cancel every solve; what they have found by then is not kept."""
        with self._lock:
            self._stopping = True
        for solve in self._solves.under_way():
            self._abandon(solve)
            solve.changes.close()

    def _look_up(self, request: PlanRequest) -> tuple[Task, Answer | None]:
        with self._database.read() as session:
            task = look_up(session, request)
            plan_id = None if request.fresh else plans.find_answer(session, task.digest)
            return task, _load(session, plan_id)

    def _answered(self, digest: str) -> Answer:
        with self._database.read() as session:
            answer = _load(session, plans.find_answer(session, digest))
        if answer is None:
            raise not_found("solve", digest)
        return answer

    def _answer_of(self, solve: Solve) -> Answer:
        """The plan that a solve ended with, or its problem raised."""
        if isinstance(solve.outcome, Problem):
            raise solve.outcome.with_traceback(None)
        assert solve.outcome is not None
        plan_id = solve.outcome.plan.plan_id
        with self._database.read() as session:
            answer = _load(session, plan_id)
        if answer is None:
            raise not_found("plan", plan_id)
        return answer

    def _join(self, task: Task, *, detached: bool) -> Solve:
        """The solve of an equal request if there is one to share, else one that starts now."""
        with self._lock:
            found = self._solves.find(task.digest)
            shared = found is not None and (found.outcome is None or not task.request.fresh)
            if found is not None and shared and found.join(detached=detached):
                return found
            solve = Solve(task.digest)
            solve.join(detached=detached)
            if self._stopping or not self._pool.submit(solve, lambda: self._run(solve, task)):
                raise Problem(
                    503,
                    f"{self._pool.jobs} plans are being made; try again in a moment",
                    headers={"Retry-After": str(RETRY_AFTER_S)},
                )
            self._solves.add(solve)
            return solve

    def _run(self, solve: Solve, task: Task) -> None:
        solve.begin()
        try:
            outcome: Outcome = self._maker.make(solve, task)
        except Exception as error:
            outcome = as_problem(error)
            if outcome.status_code == 500:
                log.exception("solve_failed", solve=solve.id)
        self._end(solve, outcome)

    def _abandon(self, solve: Solve) -> None:
        solve.cancel("abandoned")
        self._withdraw(solve, abandoned())

    def _withdraw(self, solve: Solve, told: Problem) -> None:
        """End a cancelled solve whose turn has not come."""
        if self._pool.withdraw(solve):
            self._end(solve, told)

    def _end(self, solve: Solve, outcome: Outcome) -> None:
        # Under the lock: a quick solve may end before `_join` has entered it.
        with self._lock:
            self._solves.ended(solve)
        solve.end(outcome)


def _load(session: Session, plan_id: str | None) -> Answer | None:
    body = None if plan_id is None else plans.find_body(session, plan_id)
    return Answer(plan_id, body) if plan_id and body else None
