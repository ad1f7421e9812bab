"""Answers a plan request: from the store, or by a solve in a bounded pool off the event loop."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import BoundedSemaphore, Event, Lock, Thread

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.errors import Problem, bad_field
from api.metrics import Metrics
from api.store import plans, profiles, rates
from api.store.database import Database
from profiles.cost.rates import Rates
from profiles.device import device_names
from profiles.model import ModelProfile
from solver.plan import Plan
from solver.planner import make_plan
from solver.request import PlanRequest

log = structlog.get_logger()

RETRY_AFTER_S = 2
LOOK_FOR_CLIENT_S = 0.5


@dataclass(frozen=True)
class Task:
    """A request with everything it refers to looked up."""

    request: PlanRequest
    profile: ModelProfile
    rates: Mapping[str, Rates]
    digest: str


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
        self._metrics = metrics
        self._clock = clock
        self._slots = BoundedSemaphore(workers)
        self._room = workers + queue
        self._lock = Lock()
        self._running: set[Event] = set()
        self._stopping = False

    async def answer(self, request: PlanRequest, client: Request) -> str:
        """The plan's JSON. A client that goes away cancels its solve."""
        task, stored = await run_in_threadpool(self._look_up, request)
        if stored is not None:
            return stored
        cancel = self._admit()
        solve = asyncio.wrap_future(self._submit(task, cancel))
        try:
            while not (await asyncio.wait({solve}, timeout=LOOK_FOR_CLIENT_S))[0]:
                if await client.is_disconnected():
                    cancel.set()
        except asyncio.CancelledError:
            cancel.set()
            raise
        return solve.result()[1]

    def again(self, plan_id: str) -> Plan:
        """Answer a stored plan's request once more, under the rates now in force."""
        with self._database.read() as session:
            request = plans.request_of(session, plan_id)
        task, stored = self._look_up(request)
        if stored is not None:
            return Plan.parse(stored, "stored plan")
        return self._submit(task, self._admit()).result()[0]

    def stop(self) -> None:
        """Cancel every solve; what they have found by then is not kept."""
        with self._lock:
            self._stopping = True
            for cancel in self._running:
                cancel.set()

    def _look_up(self, request: PlanRequest) -> tuple[Task, str | None]:
        with self._database.read() as session:
            profile = _profile(session, request)
            types = list(dict.fromkeys(request.device_types))
            _check_types(request, types)
            by_type = {name: rates.in_force(session, name, request.phase) for name in types}
            digest = request.digest(profile.digest, [r.version for r in by_type.values()])
            stored = None if request.fresh else plans.find_answer(session, digest)
        return Task(request, profile, by_type, digest), stored

    def _admit(self) -> Event:
        with self._lock:
            if self._stopping or len(self._running) >= self._room:
                raise Problem(
                    503,
                    f"{len(self._running)} plans are being made; try again in a moment",
                    headers={"Retry-After": str(RETRY_AFTER_S)},
                )
            cancel = Event()
            self._running.add(cancel)
        return cancel

    def _leave(self, cancel: Event) -> None:
        with self._lock:
            self._running.discard(cancel)

    def _submit(self, task: Task, cancel: Event) -> Future[tuple[Plan, str]]:
        solve: Future[tuple[Plan, str]] = Future()

        def work() -> None:
            try:
                with self._slots:
                    result = self._solve(task, cancel)
            except BaseException as error:
                self._leave(cancel)
                solve.set_exception(error)
            else:
                self._leave(cancel)
                solve.set_result(result)

        # A daemon: a solver that is slow to notice its cancellation must not hold up the exit.
        Thread(target=work, name="solve", daemon=True).start()
        return solve

    def _solve(self, task: Task, cancel: Event) -> tuple[Plan, str]:
        started = time.monotonic()
        plan = make_plan(task.request, task.profile, task.rates, cancel=cancel)
        if cancel.is_set():
            raise Problem(503, "the solve was cancelled", headers={"Retry-After": "1"})
        self._metrics.solved(plan, time.monotonic() - started)
        log.info("plan_made", plan=plan.id, status=plan.status, solve_s=plan.solve_s)
        return plan, self._keep(task, plan)

    def _keep(self, task: Task, plan: Plan) -> str:
        try:
            return self._keep_once(task, plan)
        except IntegrityError:
            # Two equal solves ended at once: now the other one's rows are there to be found.
            return self._keep_once(task, plan)

    def _keep_once(self, task: Task, plan: Plan) -> str:
        with self._database.write() as session:
            return plans.keep(session, plan, task.request, task.profile, task.digest, self._clock())


def _profile(session: Session, request: PlanRequest) -> ModelProfile:
    if isinstance(request.profile, ModelProfile):
        return request.profile
    profile = profiles.find(session, request.profile)
    if profile is None:
        known = ", ".join(str(entry["name"]) for entry in profiles.summaries(session)) or "none"
        raise bad_field("profile", f"unknown profile {request.profile!r}; known are {known}")
    return profile


def _check_types(request: PlanRequest, types: list[str]) -> None:
    field = "device_type" if request.devices is None else "devices"
    for name in types:
        if name not in device_names():
            known = ", ".join(device_names())
            raise bad_field(field, f"unknown device type {name!r}; known are {known}")
