"""The planner over HTTP (docs/http.md), typed: for executors, the demo and any other program."""

import random
import time
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from api.client.bodies import (
    COLUMNS,
    MEASUREMENTS_HEADER,
    Active,
    Assignment,
    CostModels,
    DeploymentRequest,
    DeploymentView,
    Health,
    Lease,
    LeaseRenewal,
    MeasurementBatch,
    MeasurementReceipt,
    NodeList,
    NodeRegistration,
    NodeView,
    VersionedRates,
)
from api.client.loopback import is_loopback
from api.client.planner_errors import (
    KeyRefusedError,
    NodeUnknownError,
    PlannerAwayError,
    PlannerError,
    RefusedError,
    SupersededError,
)
from profiles.errors import describe
from solver.plans import Plan
from solver.request import PlanRequest

ATTEMPTS = 3
RETRY_WAIT_S = 0.1
TIMEOUT_S = 10.0
Answer = TypeVar("Answer", bound=BaseModel)


class PlannerClient:
    """A conversation with one planner; safe across threads.

    Every call but `plan` is repeated a few times, with jitter, while the planner is away; all of
    them are idempotent. Each may raise PlannerAwayError, KeyRefusedError, RefusedError (whose
    message is the problem's detail, RFC 9457) and PlannerError for an answer that is not the
    contract's. A planner on this machine is asked directly, whatever proxy the environment names.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises PlannerError for a URL or key that no request can be made with."""
        self.url = url.rstrip("/")
        headers = {}
        if api_key:
            if not (api_key.isascii() and api_key.isprintable()):
                raise PlannerError("HPLB_API_KEY: must be printable ASCII on one line")
            headers["Authorization"] = f"Bearer {api_key}"
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise PlannerError(f"{url!r} is no URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise PlannerError(f"{url!r} is no planner's URL: give one like http://127.0.0.1:8000")
        if transport is None and is_loopback(parsed.host):
            # A transport of one's own is what keeps httpx from the environment's proxies.
            transport = httpx.HTTPTransport()
        self._takes_columns = False
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT_S, transport=transport
        )

    def ready(self) -> Health:
        """Whether the planner and its database answer: PlannerAwayError where they do not."""
        return _parse(self._ask("GET", "/readyz"), Health)

    def plan(self, request: PlanRequest, wait_s: float = 600.0) -> Plan:
        """The plan; PlannerAwayError where it is not there within `wait_s`, which ends the solve.

        Profiles may be inline or the planner's names. An equal request gets the stored plan.
        """
        return _parse(self._ask("POST", "/plan", request, wait_s=wait_s, attempts=1), Plan)

    def cost_models(self) -> list[VersionedRates]:
        """The rates in force of every device type and phase."""
        return _parse(self._ask("GET", "/cost-models"), CostModels).rates

    def put_deployment(self, name: str, wanted: DeploymentRequest) -> DeploymentView:
        """Make a plan live on nodes; what is so already changes nothing."""
        return _parse(self._ask("PUT", f"/deployments/{_quoted(name)}", wanted), DeploymentView)

    def deployment(self, name: str, generation: int | None = None) -> DeploymentView:
        """What is live, what was predicted of it and measured; or of a past generation."""
        query = {} if generation is None else {"generation": generation}
        return _parse(
            self._ask("GET", f"/deployments/{_quoted(name)}", query=query), DeploymentView
        )

    def nodes(self) -> list[NodeView]:
        """Every node that ever registered."""
        return _parse(self._ask("GET", "/nodes"), NodeList).nodes

    def register(self, node: NodeRegistration) -> Lease:
        """Announce a node and its device types; replaces what the planner knew of it."""
        answer = self._ask("POST", "/nodes", node)
        self._takes_columns = answer.headers.get(MEASUREMENTS_HEADER) == COLUMNS
        return _parse(answer, Lease)

    def renew(self, node_id: str, renewal: LeaseRenewal) -> Lease:
        """Keep a lease and say what runs; NodeUnknownError when the node has to register again."""
        path = f"/nodes/{_quoted(node_id)}/lease"
        return _parse(self._ask("PUT", path, renewal, unknown=NodeUnknownError), Lease)

    def assignment(self, node_id: str, known: Active | None, wait_s: float) -> Assignment | None:
        """A node's assignment once it is not `known`; None when nothing changed in `wait_s`.

        Raises NodeUnknownError when the node has to register again.
        """
        path = f"/nodes/{_quoted(node_id)}/assignment"
        query = {"wait_s": wait_s, **({} if known is None else known.model_dump())}
        answer = self._ask("GET", path, query=query, wait_s=wait_s, unknown=NodeUnknownError)
        return None if answer.status_code == HTTPStatus.NO_CONTENT else _parse(answer, Assignment)

    def post_measurements(self, batch: MeasurementBatch) -> MeasurementReceipt:
        """Hand over a measured round; SupersededError when its generation is history.

        In columns where the planner has said that it reads them.
        """
        if self._takes_columns:
            try:
                return self._post(batch.in_columns())
            except SupersededError:
                raise
            except RefusedError:
                # Perhaps an older planner has taken its place.
                self._takes_columns = False
        return self._post(batch)

    def _post(self, batch: BaseModel) -> MeasurementReceipt:
        answer = self._ask("POST", "/measurements", batch, conflict=SupersededError)
        self._takes_columns = answer.headers.get(MEASUREMENTS_HEADER) == COLUMNS
        return _parse(answer, MeasurementReceipt)

    def _ask(
        self,
        method: str,
        path: str,
        body: BaseModel | None = None,
        query: dict[str, Any] | None = None,
        wait_s: float = 0.0,
        attempts: int = ATTEMPTS,
        unknown: type[PlannerError] = RefusedError,
        conflict: type[PlannerError] = RefusedError,
    ) -> httpx.Response:
        """Send a request; 404 raises `unknown`, 409 `conflict`."""
        for left in reversed(range(attempts)):
            try:
                answer = self._http.request(
                    method,
                    path,
                    json=None if body is None else body.model_dump(mode="json"),
                    params=query,
                    timeout=httpx.Timeout(TIMEOUT_S, read=TIMEOUT_S + wait_s),
                )
                _check(answer, unknown, conflict)
                return answer
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
                away = PlannerAwayError(f"{self.url} does not answer: {reason}", answered=False)
            except PlannerAwayError as error:
                away = error
            if left:
                # Jittered, so that nodes do not return all at once.
                time.sleep(RETRY_WAIT_S * (attempts - left) * random.uniform(0.5, 1.5))
        raise away from None


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _check(
    answer: httpx.Response, unknown: type[PlannerError], conflict: type[PlannerError]
) -> None:
    status = answer.status_code
    if answer.is_success:
        return
    said = f"{answer.request.method} {answer.request.url.path}: {status} {_detail(answer)}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        raise PlannerAwayError(said, answered=True)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise KeyRefusedError(f"{said}; set HPLB_API_KEY to the planner's key")
    if status == HTTPStatus.NOT_FOUND:
        raise unknown(said)
    raise (conflict if status == HTTPStatus.CONFLICT else RefusedError)(said)


def _detail(answer: httpx.Response) -> str:
    """What a problem (RFC 9457) says, with its fields; the reason phrase of any other answer."""
    try:
        problem = answer.json()
    except ValueError:
        return answer.reason_phrase
    if not isinstance(problem, dict):
        return answer.reason_phrase
    detail = str(problem.get("detail") or problem.get("title") or answer.reason_phrase)
    fields = problem.get("errors")
    faults = [
        f"{fault.get('field')}: {fault.get('message')}"
        for fault in (fields if isinstance(fields, list) else [])
        if isinstance(fault, dict)
    ]
    return f"{detail} ({'; '.join(faults)})" if faults else detail


def _parse(answer: httpx.Response, kind: type[Answer]) -> Answer:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        where = f"{answer.request.method} {answer.request.url.path}"
        raise PlannerError(
            f"{where}: the answer is no {kind.__name__.lower()}: {describe(error)}"
        ) from None
