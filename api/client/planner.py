"""The planner over HTTP (docs/http.md), as an executor sees it."""

from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from api.client.messages import (
    Active,
    Assignment,
    Batch,
    KnownNodes,
    Lease,
    Receipt,
    Registration,
    Renewal,
)
from api.client.planner_errors import (
    KeyRefusedError,
    NodeUnknownError,
    PlannerAwayError,
    PlannerError,
    RefusedError,
    SupersededError,
)
from profiles.model import describe

ATTEMPTS = 3
RETRY_WAIT_S = 0.1
TIMEOUT_S = 10.0
Answer = TypeVar("Answer", bound=BaseModel)


class PlannerClient:
    """One node's conversation with the planner; safe across threads.

    Every call is repeated a few times, with jitter, while the planner is away; all of them are
    idempotent. Each may raise PlannerAwayError, KeyRefusedError, RefusedError (whose message is
    the problem's detail, RFC 9457) and PlannerError for an answer that is not the contract's.
    """

    def __init__(
        self,
        url: str,
        node_id: str,
        boot_id: str,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises PlannerError for a URL or key that no request can be made with."""
        self.url, self.node_id, self.boot_id = url.rstrip("/"), node_id, boot_id
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
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT_S, transport=transport
        )
        self._node = f"/nodes/{quote(node_id, safe='')}"

    def knows_node(self) -> bool:
        """Whether this node ever registered; a planner that says no has no measurement of it."""
        known = _parse(self._ask("GET", "/nodes"), KnownNodes)
        return any(node.node_id == self.node_id for node in known.nodes)

    def register(self, devices: list[str], backend: str, versions: dict[str, str]) -> Lease:
        """Announce this node and its device types; replaces what the planner knew of it."""
        body = Registration(
            node_id=self.node_id,
            boot_id=self.boot_id,
            devices=devices,
            backend=backend,
            versions=versions,
        )
        return _parse(self._ask("POST", "/nodes", body), Lease)

    def renew(self, active: Active | None, error: str | None) -> Lease:
        """Keep the lease and say what runs; NodeUnknownError when it has to register again."""
        body = Renewal(boot_id=self.boot_id, active=active, error=error)
        answer = self._ask("PUT", f"{self._node}/lease", body, unknown=NodeUnknownError)
        return _parse(answer, Lease)

    def assignment(self, known: Active | None, wait_s: float) -> Assignment | None:
        """The assignment as soon as it is not `known`; None when nothing changed in `wait_s`.

        Raises NodeUnknownError when the node has to register again.
        """
        query = {"wait_s": wait_s, **({} if known is None else known.model_dump())}
        answer = self._ask(
            "GET", f"{self._node}/assignment", query=query, wait_s=wait_s, unknown=NodeUnknownError
        )
        return None if answer.status_code == HTTPStatus.NO_CONTENT else _parse(answer, Assignment)

    def post(self, batch: Batch) -> Receipt:
        """Hand over a measured round; SupersededError when its generation is history."""
        answer = self._ask("POST", "/measurements", batch, conflict=SupersededError)
        return _parse(answer, Receipt)

    def _ask(
        self,
        method: str,
        path: str,
        body: BaseModel | None = None,
        query: dict[str, Any] | None = None,
        wait_s: float = 0.0,
        unknown: type[PlannerError] = RefusedError,
        conflict: type[PlannerError] = RefusedError,
    ) -> httpx.Response:
        """Send a request; 404 raises `unknown`, 409 `conflict`."""
        retries = stamina.retry_context(
            on=PlannerAwayError,
            attempts=ATTEMPTS,
            timeout=None,
            wait_initial=RETRY_WAIT_S,
            wait_jitter=RETRY_WAIT_S,
        )
        for attempt in retries:
            with attempt:
                try:
                    answer = self._http.request(
                        method,
                        path,
                        json=None if body is None else body.model_dump(mode="json"),
                        params=query,
                        timeout=httpx.Timeout(TIMEOUT_S, read=TIMEOUT_S + wait_s),
                    )
                except httpx.RequestError as error:
                    reason = str(error) or type(error).__name__
                    raise PlannerAwayError(
                        f"{self.url} does not answer: {reason}", answered=False
                    ) from None
                _check(answer, unknown, conflict)
        return answer


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
