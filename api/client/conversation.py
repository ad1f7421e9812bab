"""What can be asked of a planner (docs/api.md), typed; said once, for both clients."""

import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import BaseModel, ValidationError

from api.client.bodies import (
    COLUMNS,
    MEASUREMENTS_HEADER,
    Active,
    Assignment,
    Compared,
    CostModels,
    DeploymentList,
    DeploymentRequest,
    DeploymentView,
    Health,
    Incumbent,
    Lease,
    LeaseRenewal,
    MeasurementBatch,
    MeasurementReceipt,
    NodeList,
    NodeRegistration,
    NodeView,
    PlanCheck,
    PlanPage,
    ProblemBody,
    ProfileList,
    ProfileSummary,
    ServiceVersion,
    SolveAccepted,
    SolveCut,
    SolveEnd,
    SolveList,
    SolveStatus,
    SolveUnderWay,
    VersionedRates,
)
from api.client.planner_errors import (
    NodeUnknownError,
    NotFoundError,
    PlannerAwayError,
    PlannerError,
    RefusedError,
    SupersededError,
    failure,
)
from api.client.wire import TIMEOUT_S, VERSION, Wire
from profiles.errors import describe
from profiles.model import ModelProfile
from solver.plans import Plan
from solver.request import PlanRequest

ATTEMPTS = 3
RETRY_WAIT_S = 0.1
RETRY_AFTER_MOST_S = 5.0
"""Told to come back later than that, a caller hears of it instead."""
SILENCE_S = 45.0
"""Of a stream that has a comment every 15 s: the planner is gone."""
Answer = TypeVar("Answer", bound=BaseModel)
Page = TypeVar("Page", DeploymentList, NodeList)
Entry = TypeVar("Entry")
Event = Incumbent | SolveEnd
EVENTS: Mapping[str, type[Event]] = {
    "incumbent": Incumbent,
    "done": SolveEnd,
    "cancelled": SolveCut,
}


class Conversation:
    """A conversation with one planner.

    Every call is safe to repeat, `POST /plan` too (an equal request shares its solve or its plan),
    and is repeated a few times while the planner is away, ever later, with jitter, and not before
    the planner has asked for it (`Retry-After`). Each may raise PlannerAwayError, KeyRefusedError,
    another RefusedError (its message is the problem's detail, RFC 9457), and PlannerError for an
    answer that is not the contract's.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._takes_columns = False

    async def version(self) -> ServiceVersion:
        """Which release the planner is."""
        return await self._ask(ServiceVersion, "GET", "/version")

    async def ready(self) -> Health:
        """Whether the planner and its database answer: PlannerAwayError where they do not."""
        return await self._ask(Health, "GET", "/readyz")

    async def plan(self, request: PlanRequest, wait_s: float = 600.0) -> Plan:
        """The plan; PlannerAwayError where it is not there within `wait_s`, which ends the solve.

        Profiles may be inline or the planner's names. An equal request gets the stored plan. A
        planner with too many solves is asked again while there is time.
        """
        return await self._ask(Plan, "POST", "/plan", request, wait_s=wait_s, patience_s=wait_s)

    async def start(self, request: PlanRequest) -> Plan | SolveAccepted:
        """The stored plan, or the solve that has been started; it goes on by itself."""
        later = {"Prefer": "respond-async"}
        answer = await self._answer("POST", "/plan", request, headers=later)
        return _either(answer, SolveAccepted)

    async def follow(self, solve_id: str) -> AsyncGenerator[Event, None]:
        """Better plans and bounds as they come, and how the solve ended.

        Goes on where a connection breaks off. Raises the solve's own problem where it failed, and
        NotFoundError where the planner knows of no such solve or plan any more.
        """
        seen, broken = 0, 0
        while True:
            answer = await self._open(solve_id, seen)
            reason = "the stream ended before the solve did"
            try:
                async with aclosing(self._events(answer)) as events:
                    async for event in events:
                        yield event
                        if isinstance(event, SolveEnd):
                            return
                        seen, broken = event.revision, 0
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            finally:
                await self._wire.close(answer)
            broken += 1
            if broken >= ATTEMPTS:
                raise PlannerAwayError(f"GET {_events_path(solve_id)}: {reason}", answered=False)
            await self._wire.pause(_back_off(broken))

    async def solve(
        self, request: PlanRequest, on_incumbent: Callable[[Incumbent], object] | None = None
    ) -> Plan:
        """The plan, however long it takes; `on_incumbent` is told of every better plan and bound.

        Unlike `plan` it outlives broken connections, and a planner that forgot its solves in a
        restart is asked anew.
        """
        for left in reversed(range(ATTEMPTS)):
            found = await self.start(request)
            if isinstance(found, Plan):
                return found
            try:
                async with aclosing(self.follow(found.id)) as events:
                    async for event in events:
                        if isinstance(event, SolveEnd):
                            return await self._ask(Plan, "GET", f"/plans/{_quoted(event.plan_id)}")
                        if on_incumbent is not None:
                            on_incumbent(event)
            except NotFoundError:
                if not left:
                    raise
        raise AssertionError("a followed solve ends or raises")

    async def cancel(self, solve_id: str) -> Plan | SolveStatus:
        """End a solve: its best plan so far, or its status while that is being put together."""
        path = f"/plans/{_quoted(solve_id)}/cancel"
        return _either(await self._answer("POST", path, wait_s=SILENCE_S), SolveStatus)

    async def solves(self) -> list[SolveUnderWay]:
        """The solves under way."""
        return (await self._ask(SolveList, "GET", "/solves")).solves

    async def check(self, request: PlanRequest) -> PlanCheck:
        """Whether a request would be solved, and what is known of it, without solving it."""
        return await self._ask(PlanCheck, "POST", "/plan/validate", request)

    async def find_plan(self, name: str) -> Plan | SolveStatus:
        """A plan by its own id or its solve's, or how far that solve is."""
        return _either(await self._answer("GET", f"/plans/{_quoted(name)}"), SolveStatus)

    async def plans(self, limit: int = 50, offset: int = 0) -> PlanPage:
        """Plans in short, newest first."""
        return await self._ask(PlanPage, "GET", "/plans", query={"limit": limit, "offset": offset})

    async def delete_plan(self, plan_id: str) -> None:
        """Delete a plan that no deployment runs or ran."""
        await self._answer("DELETE", f"/plans/{_quoted(plan_id)}")

    async def compare(self, plan_ids: Sequence[str]) -> Compared:
        """Plans for one profile and workload side by side, in this order."""
        return await self._ask(Compared, "GET", "/comparison", query={"plan": list(plan_ids)})

    async def profiles(self) -> list[ProfileSummary]:
        """The catalogue's profiles and those stored at the planner."""
        return (await self._ask(ProfileList, "GET", "/profiles")).profiles

    async def profile(self, name: str) -> ModelProfile:
        """A profile by its name."""
        return await self._ask(ModelProfile, "GET", f"/profiles/{_quoted(name)}")

    async def put_profile(self, profile: ModelProfile) -> ProfileSummary:
        """Store a profile under its name."""
        path = f"/profiles/{_quoted(profile.name)}"
        return await self._ask(ProfileSummary, "PUT", path, profile)

    async def delete_profile(self, name: str) -> None:
        """Take a profile's name away; plans made from it keep its content."""
        await self._answer("DELETE", f"/profiles/{_quoted(name)}")

    async def cost_models(self) -> list[VersionedRates]:
        """The rates in force of every device type and phase."""
        return (await self._ask(CostModels, "GET", "/cost-models")).rates

    async def put_deployment(self, name: str, wanted: DeploymentRequest) -> DeploymentView:
        """Make a plan live on nodes; what is so already changes nothing."""
        return await self._ask(DeploymentView, "PUT", f"/deployments/{_quoted(name)}", wanted)

    async def deployments(self) -> list[DeploymentView]:
        """All deployments, by name."""
        return await self._every(DeploymentList, "/deployments", lambda page: page.deployments)

    async def deployment(self, name: str, generation: int | None = None) -> DeploymentView:
        """What is live, what was predicted of it and measured; or of a past generation."""
        query = {} if generation is None else {"generation": generation}
        path = f"/deployments/{_quoted(name)}"
        return await self._ask(DeploymentView, "GET", path, query=query)

    async def delete_deployment(self, name: str) -> None:
        """Delete a deployment that no live node serves."""
        await self._answer("DELETE", f"/deployments/{_quoted(name)}")

    async def nodes(self) -> list[NodeView]:
        """Every node that ever registered."""
        return await self._every(NodeList, "/nodes", lambda page: page.nodes)

    async def delete_node(self, node_id: str) -> None:
        """Forget a node whose lease has run out and that serves no deployment."""
        await self._answer("DELETE", f"/nodes/{_quoted(node_id)}")

    async def register(self, node: NodeRegistration) -> Lease:
        """Announce a node and its device types; replaces what the planner knew of it."""
        answer = await self._answer("POST", "/nodes", node)
        self._takes_columns = answer.headers.get(MEASUREMENTS_HEADER) == COLUMNS
        return _parse(answer, Lease)

    async def renew(self, node_id: str, renewal: LeaseRenewal) -> Lease:
        """Keep a lease and say what runs; NodeUnknownError when the node has to register again."""
        path, kinds = f"/nodes/{_quoted(node_id)}/lease", {404: NodeUnknownError}
        return await self._ask(Lease, "PUT", path, renewal, kinds=kinds)

    async def assignment(
        self, node_id: str, known: Active | None, wait_s: float
    ) -> Assignment | None:
        """A node's assignment once it is not `known`; None when nothing changed in `wait_s`.

        Raises NodeUnknownError when the node has to register again.
        """
        path, kinds = f"/nodes/{_quoted(node_id)}/assignment", {404: NodeUnknownError}
        query = {"wait_s": wait_s, **({} if known is None else known.model_dump())}
        answer = await self._answer("GET", path, query=query, wait_s=wait_s, kinds=kinds)
        return None if answer.status_code == HTTPStatus.NO_CONTENT else _parse(answer, Assignment)

    async def post_measurements(self, batch: MeasurementBatch) -> MeasurementReceipt:
        """Hand over a measured round; SupersededError when its generation is history.

        In columns where the planner has said that it reads them.
        """
        if self._takes_columns:
            try:
                return await self._post(batch.in_columns())
            except SupersededError:
                raise
            except RefusedError:
                # Perhaps an older planner has taken its place.
                self._takes_columns = False
        return await self._post(batch)

    async def _post(self, batch: BaseModel) -> MeasurementReceipt:
        kinds = {409: SupersededError}
        answer = await self._answer("POST", "/measurements", batch, kinds=kinds)
        self._takes_columns = answer.headers.get(MEASUREMENTS_HEADER) == COLUMNS
        return _parse(answer, MeasurementReceipt)

    async def _ask(
        self, kind: type[Answer], method: str, path: str, body: BaseModel | None = None, **how: Any
    ) -> Answer:
        return _parse(await self._answer(method, path, body, **how), kind)

    async def _every(
        self, kind: type[Page], path: str, entries: Callable[[Page], list[Entry]]
    ) -> list[Entry]:
        """What all pages of a list hold."""
        found: list[Entry] = []
        while True:
            page = await self._ask(kind, "GET", path, query={"offset": len(found)})
            more = entries(page)
            found += more
            if not more or len(found) >= page.total:
                return found

    async def _answer(
        self, method: str, path: str, body: BaseModel | None = None, **how: Any
    ) -> httpx.Response:
        """The answer to a request, whole."""
        return await self._send(method, path, body, stream=False, **how)

    async def _open(self, solve_id: str, seen: int) -> httpx.Response:
        """A solve's events after revision `seen`, still to come."""
        headers = {"Last-Event-ID": str(seen)} if seen else {}
        path, wait_s = _events_path(solve_id), SILENCE_S - TIMEOUT_S
        return await self._send("GET", path, stream=True, headers=headers, wait_s=wait_s)

    async def _send(
        self,
        method: str,
        path: str,
        body: BaseModel | None = None,
        *,
        stream: bool,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        patience_s: float = 0.0,
        kinds: Mapping[int, type[PlannerError]] | None = None,
    ) -> httpx.Response:
        """A success, maybe after some attempts; `kinds` of errors by status, where not the usual.

        An answer may take `wait_s` by itself; with `patience_s` a planner that says when to come
        back is asked again for so long.
        """
        given_up = time.monotonic() + patience_s
        request_id, attempt = uuid4().hex, 0
        while True:
            attempt += 1
            request = self._wire.request(
                method,
                path,
                content=None if body is None else body.model_dump_json(),
                params=query,
                headers={
                    "X-Request-ID": request_id,
                    **({} if body is None else {"Content-Type": "application/json"}),
                    **(headers or {}),
                },
                timeout=httpx.Timeout(TIMEOUT_S, read=TIMEOUT_S + wait_s),
            )
            try:
                answer = await self._wire.send(request)
                if not (stream and answer.is_success):
                    await self._wire.read(answer)
                if answer.is_success:
                    return answer
                raise _failure(f"{method} {path}", answer, kinds)
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
                said = f"{self._wire.url} does not answer: {reason}"
                away = PlannerAwayError(said, answered=False, request_id=request_id)
                if wait_s and isinstance(error, httpx.ReadTimeout):
                    raise away from None  # it had all the time there was
            except PlannerAwayError as error:
                away = error
            later_s = away.retry_after_s
            pause_s = max(_back_off(attempt), later_s or 0.0)
            in_time = later_s is not None and time.monotonic() + pause_s < given_up
            if (attempt >= ATTEMPTS and not in_time) or (later_s or 0.0) > RETRY_AFTER_MOST_S:
                raise away from None
            await self._wire.pause(pause_s)

    async def _events(self, answer: httpx.Response) -> AsyncGenerator[Event, None]:
        """The events of a stream; what is not known of, comments included, is skipped."""
        fields: dict[str, str] = {}
        async for line in self._wire.lines(answer):
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
                continue
            event, data = fields.get("event", ""), fields.get("data", "")
            fields = {}
            if event == "failed":
                problem = _parsed(data, ProblemBody, "the end of a solve")
                raise failure(f"the solve failed: {_said(problem)}", problem)
            if event in EVENTS:
                yield _parsed(data, EVENTS[event], f"event {event}")


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _events_path(solve_id: str) -> str:
    return f"/plans/{_quoted(solve_id)}/events"


def _back_off(attempt: int) -> float:
    """Seconds to pause after so many attempts; jittered, so that nodes do not return at once."""
    return RETRY_WAIT_S * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)


def _failure(
    asked: str, answer: httpx.Response, kinds: Mapping[int, type[PlannerError]] | None
) -> PlannerError:
    problem = _problem(answer)
    seconds = answer.headers.get("Retry-After", "")
    return failure(
        f"{asked}: {answer.status_code} {_said(problem)}",
        problem,
        answer.headers.get("X-Request-ID"),
        float(seconds) if seconds.isdigit() else None,
        kinds,
    )


def _problem(answer: httpx.Response) -> ProblemBody:
    """What an answer that is no success says, whether or not it is a problem (RFC 9457)."""
    least = {"title": answer.reason_phrase, "detail": answer.reason_phrase}
    try:
        said = answer.json()
        found = {**least, **said} if isinstance(said, dict) else least
        return ProblemBody.model_validate({**found, "status": answer.status_code})
    except ValueError:
        return ProblemBody.model_validate({**least, "status": answer.status_code})


def _said(problem: ProblemBody) -> str:
    """A problem in one line, with its fields where the detail does not name them."""
    faults = [f"{fault.field}: {fault.message}" for fault in problem.errors or []]
    untold = [fault for fault in faults if fault not in problem.detail]
    return f"{problem.detail} ({'; '.join(untold)})" if untold else problem.detail


def _either(answer: httpx.Response, pending: type[Answer]) -> Plan | Answer:
    if answer.status_code == HTTPStatus.ACCEPTED:
        return _parse(answer, pending)
    return _parse(answer, Plan)


def _parse(answer: httpx.Response, kind: type[Answer]) -> Answer:
    path = answer.request.url.path.partition(f"{VERSION}/")[2]
    return _parsed(answer.content, kind, f"{answer.request.method} /{path}: the answer")


def _parsed(text: str | bytes, kind: type[Answer], what: str) -> Answer:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise PlannerError(f"{what} is no {kind.__name__.lower()}: {describe(error)}") from None
