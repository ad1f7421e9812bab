"""Answers a plan request: from the store, or by a solve in a worker process.

Equal requests share one solve. It goes on while somebody waits for it or has asked to be answered
later; cut short, its best plan so far is kept but answers no request.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from threading import Lock

import structlog
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.client.bodies import PlanCheck, SolveUnderWay
from api.metrics import Metrics
from api.problems import Problem, as_problem, not_found
from api.solves.job import Outcome, SolveJob, abandoned
from api.solves.kept_plan import KeptPlan
from api.solves.limits import SolveLimits, is_quick, size_of
from api.solves.make import PlanMaker
from api.solves.prefer import BACKGROUND, USUAL
from api.solves.registry import SolveRegistry
from api.solves.remembered import RememberedAnswers
from api.solves.resolve import ResolvedRequest, resolve, with_profile, with_traffic
from api.solves.solve_pool import SolvePool, Turn
from api.solves.solver_process import Solver
from api.store import plan_store, solve_store
from api.store.database import Database
from api.store.session import Session, UnavailableError
from profiles.errors import HplbError
from profiles.model import ModelProfile
from solver.planning.slots import with_slots
from solver.request import PlanRequest, WorkloadOptions

log = structlog.get_logger()
tracer = trace.get_tracer("hplb")

LOOK_FOR_CLIENT_S = 0.5
TOLD_WITHIN_S = 0.08
"""What became of a cancelled solve, whatever it is."""


@dataclass(frozen=True)
class Asker:
    """Who asks for a plan, by key or address, and how urgent it is to them (RFC 9218).

    `once` is an idempotency key: what comes with it again gets the same answer. `text` is what was
    sent, where the same text may be answered from memory.
    """

    client: str
    urgency: int = USUAL
    once: str | None = None
    text: bytes = b""


REFINING = Asker("the refine loop", BACKGROUND)
NOBODY = Asker("nobody")


class Answerer:
    """From a request to its plan; the pool says how many are made at a time, and whose."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        pool: SolvePool,
        limits: SolveLimits,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._clock = clock
        self._maker = PlanMaker(database, metrics, clock)
        self._pool = pool
        self._limits = limits
        self._solves = SolveRegistry(clock)
        self.remembered = RememberedAnswers()
        self._lock = Lock()
        self._stopping = False
        metrics.scrape(self._pool.gauges)

    def start(self) -> None:
        """Start the workers, and ask again what was promised before a restart."""
        self._pool.start()
        with self._database.read() as session:
            promised = solve_store.promised(session)
        for left in promised:
            asker = Asker(left.client, left.urgency)
            try:
                resolved, _ = self._look_up(left.request, asker)
                # Under the name that was promised, whatever the rates in force are by now.
                solve = self._join(replace(resolved, digest=left.digest), asker, detached=True)
            except (HplbError, Problem) as error:
                log.warning("promise_broken", solve=left.digest, why=str(error))
                self._forget(left.digest)
            else:
                solve.promised = True

    async def answer(self, request: PlanRequest, asker: Asker, connection: Request) -> KeptPlan:
        """The plan, however long it takes; a solve that no client waits for any more is ended."""
        resolved, stored = await run_in_threadpool(self._look_up, request, asker)
        if stored is not None:
            return stored
        solve = self._join(resolved, asker, detached=False)
        try:
            while not await solve.ended_within(LOOK_FOR_CLIENT_S):
                if self._stopping or await connection.is_disconnected():
                    raise abandoned()
        finally:
            if solve.leave():
                self._abandon(solve)
        return await self._told(solve)

    async def answer_or_solve(
        self, request: PlanRequest, asker: Asker, wait_s: float
    ) -> KeptPlan | SolveJob:
        """The plan if it is there within `wait_s`, else the solve, which goes on by itself."""
        resolved, stored = await run_in_threadpool(self._look_up, request, asker)
        if stored is not None:
            return stored
        solve = self._join(resolved, asker, detached=True)
        if await solve.ended_within(wait_s):
            return await self._told(solve)
        await run_in_threadpool(self._promise, solve, resolved)
        return solve

    def check(self, request: PlanRequest) -> PlanCheck:
        """What a request comes to; raises what asking for it would, before anything is solved."""
        resolved, stored = self._look_up(request, NOBODY)
        return PlanCheck(
            id=resolved.digest,
            plan_id=None if stored is None else stored.plan_id,
            size=size_of(resolved.whole),
            quick=is_quick(resolved.whole),
        )

    def under_way(self) -> list[SolveUnderWay]:
        """Every solve without an outcome, the one asked for first first."""
        solves = sorted(self._solves.under_way(), key=lambda solve: solve.asked_at)
        return [solve.under_way() for solve in solves]

    def again(
        self,
        plan_id: str,
        time_limit_s: float,
        corrected: ModelProfile | None = None,
        traffic: Sequence[WorkloadOptions] = (),
    ) -> KeptPlan | SolveJob:
        """Ask a stored plan's request once more, in the background, under the rates now in force.

        With a `corrected` profile it takes the place of the one the plan was made from, and
        `traffic`, an engine's, that of all its workloads but the first; the engine has as many
        slots as it began with. What the request allows itself is cut to `time_limit_s`.
        """
        with self._database.read() as session:
            request = plan_store.request_of(session, plan_id)
            plan = plan_store.load(session, plan_id)
        if corrected is not None:
            request = with_profile(request, plan.profile.digest, corrected)
        if traffic:
            request = with_traffic(request, traffic)
            if plan.slots is not None:
                request = with_slots(request, plan.slots)
        limit_s = min(request.time_limit_s, time_limit_s, self._limits.time_limit_s)
        limited = request.model_copy(update={"time_limit_s": limit_s})
        resolved, stored = self._look_up(limited, REFINING)
        return stored or self._join(resolved, REFINING, detached=True)

    def plan_of(self, found: KeptPlan | SolveJob) -> KeptPlan:
        """What was found, or the plan that a solve has ended with; its problem raised."""
        if isinstance(found, KeptPlan):
            return found
        plan_id, body = self._made(found)
        if body is not None:
            return KeptPlan(plan_id, body)
        with self._database.read() as session:
            answer = _load(session, plan_id)
        if answer is None:
            raise not_found("plan", plan_id)
        return answer

    def find(self, digest: str) -> SolveJob | None:
        """The newest solve of a request, while it can still be asked about."""
        return self._solves.find(digest)

    def find_either(self, name: str) -> KeptPlan | SolveJob:
        """What a plan's or a solve's id stands for: a plan, or a solve that is under way.

        Raises Problem: 404 where it stands for nothing, the solve's own where that failed.
        """
        solve = self._solves.find(name)
        if solve is not None:
            return solve if solve.outcome is None else self.plan_of(solve)
        with self._database.read() as session:
            answer = _load(session, plan_store.find_answer(session, name) or name)
        if answer is None:
            raise not_found("plan or solve", name)
        return answer

    async def cut_short(self, digest: str) -> KeptPlan | SolveJob:
        """End a solve with its best plan so far; one that has ended stays what it is.

        The solve itself where that plan is still being put together after `TOLD_WITHIN_S`.
        Raises Problem: 404 for what is no solve, 409 where its turn never came.
        """
        solve = self._solves.find(digest)
        if solve is None:
            return await run_in_threadpool(self._stored_answer, digest)
        solve.cancel("cut_short")
        self._withdraw(
            solve, Problem(409, "the solve was cancelled before its turn came: there is no plan")
        )
        if not await solve.ended_within(TOLD_WITHIN_S):
            return solve
        return await self._told(solve)

    def forget(self, plan_id: str) -> None:
        """A plan was deleted: nobody is answered with it from memory."""
        self.remembered.forget()
        self._solves.forget(plan_id)
        self._maker.forget(plan_id)

    def stop(self) -> None:
        """Cancel every solve; what they have found by then is not kept."""
        with self._lock:
            self._stopping = True
        for solve in self._solves.under_way():
            self._abandon(solve)
            solve.changes.close()
        self._pool.stop()

    def join(self, timeout_s: float) -> None:
        """Wait, once stopped, until no solve has anything more to do."""
        self._pool.join(timeout_s)

    async def _told(self, solve: SolveJob) -> KeptPlan:
        """`plan_of` an ended solve; a thread is asked only where the database has to be."""
        plan_id, body = self._made(solve)
        if body is not None:
            return KeptPlan(plan_id, body)
        return await run_in_threadpool(self.plan_of, solve)

    def _made(self, solve: SolveJob) -> tuple[str, str | None]:
        """The plan that a solve has ended with, and its JSON if it is at hand."""
        if isinstance(solve.outcome, Problem):
            raise solve.outcome.with_traceback(None)
        assert solve.outcome is not None
        plan_id = solve.outcome.plan.plan_id
        return plan_id, self._maker.find(plan_id)

    def _look_up(
        self, request: PlanRequest, asker: Asker
    ) -> tuple[ResolvedRequest, KeptPlan | None]:
        changes = self.remembered.changes
        with self._database.read() as session:
            resolved = resolve(session, request)
            self._limits.check(resolved.whole)
            if asker.once is not None:
                session.rollback()  # nothing is read while the key is written down
                resolved = self._once(resolved, asker.client, asker.once)
            fresh, digest = resolved.request.fresh, resolved.digest
            plan_id = None if fresh else plan_store.find_answer(session, digest)
            stored = _load(session, plan_id)
        if stored is not None and asker.text:
            self.remembered.add(asker.text, stored, changes)
        return resolved, stored

    def _once(self, resolved: ResolvedRequest, client: str, key: str) -> ResolvedRequest:
        """The request, or where its key came before what it was then, not to be solved anew.

        Raises Problem: 422 where the key came with another request.
        """
        text = resolved.request.model_dump_json()
        same = hashlib.sha256(text.encode()).hexdigest()
        now = self._clock()
        used = self._database.written(
            lambda session: solve_store.claim(session, client, key, same, resolved.digest, now)
        )
        if used is None:
            return resolved
        request, digest = used
        if request != same:
            raise Problem(422, "this Idempotency-Key came with another request before")
        settled = resolved.request.model_copy(update={"fresh": False})
        return replace(resolved, request=settled, digest=digest)

    def _stored_answer(self, digest: str) -> KeptPlan:
        with self._database.read() as session:
            answer = _load(session, plan_store.find_answer(session, digest))
        if answer is None:
            raise not_found("solve", digest)
        return answer

    def _join(self, resolved: ResolvedRequest, asker: Asker, *, detached: bool) -> SolveJob:
        """The solve of an equal request if there is one to share, else one that starts now."""
        with self._lock:
            found = self._solves.find(resolved.digest)
            shared = found is not None and (found.outcome is None or not resolved.request.fresh)
            if found is not None and shared and found.join(detached=detached):
                return found
            solve = SolveJob(resolved.digest, asker.client, asker.urgency, self._clock())
            solve.join(detached=detached)
            # What is logged and traced of the solve says which request asked for it first.
            asked = copy_context()
            turn = Turn(
                solve,
                lambda solver: asked.run(self._run, solve, resolved, solver),
                is_quick(resolved.whole),
            )
            self._pool.submit(turn)
            self._solves.add(solve)
            return solve

    def _run(self, solve: SolveJob, resolved: ResolvedRequest, solver: Solver) -> None:
        solve.begin()
        told = {"hplb.solve": solve.id, "hplb.method": resolved.whole.method}
        with (
            structlog.contextvars.bound_contextvars(solve=solve.id),
            tracer.start_as_current_span("solve", attributes=told) as span,
        ):
            outcome: Outcome
            try:
                outcome = ended = self._maker.make(solve, resolved, solver)
                span.set_attribute("hplb.plan", ended.plan.plan_id)
            except Exception as error:
                outcome = as_problem(error)
                span.set_status(StatusCode.ERROR, str(outcome.detail))
                if outcome.status_code == 500:
                    log.exception("solve_failed")
        self._end(solve, outcome)

    def _abandon(self, solve: SolveJob) -> None:
        solve.cancel("abandoned")
        self._withdraw(solve, abandoned())

    def _withdraw(self, solve: SolveJob, told: Problem) -> None:
        """End a cancelled solve whose turn has not come."""
        if self._pool.withdraw(solve):
            self._end(solve, told)

    def _end(self, solve: SolveJob, outcome: Outcome) -> None:
        self.remembered.forget()
        # Under the lock: a quick solve may end before `_join` has entered it.
        with self._lock:
            self._solves.note_end(solve)
        solve.end(outcome)
        if solve.promised and not self._stopping:
            self._forget(solve.id)

    def _promise(self, solve: SolveJob, resolved: ResolvedRequest) -> None:
        """Let a restart ask again for a solve that its client was told to come back for."""
        solve.promised = True
        asked, who = resolved.request, (solve.client, solve.urgency, solve.asked_at)
        self._database.written(lambda session: solve_store.promise(session, solve.id, asked, *who))
        if solve.outcome is not None:
            self._forget(solve.id)

    def _forget(self, digest: str) -> None:
        try:
            self._database.written(lambda session: solve_store.forget(session, digest))
        except UnavailableError as error:
            # It is asked once more than need be, and then answered from the store.
            log.warning("promise_kept_too_long", solve=digest, error=str(error))


def _load(session: Session, plan_id: str | None) -> KeptPlan | None:
    body = None if plan_id is None else plan_store.find_body(session, plan_id)
    return KeptPlan(plan_id, body) if plan_id and body else None
