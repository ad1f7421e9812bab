"""A line in the log for every request, and the id that everything logged on its way carries.

`X-Request-ID` is taken where it is fit to be logged, made otherwise, and returned.
"""

import re
import time
from collections.abc import Iterable, Iterator
from uuid import uuid4

import structlog
from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import HEALTH, client_of
from api.problems import answer_to

log = structlog.get_logger()

HEADER = b"x-request-id"
FIT = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET = HEALTH | {"/metrics"}
"""Asked every few seconds by what watches the service: logged where they fail."""
NAMING = {b"content-location": "plan", b"location": "solve"}
"""What answers name, by the header that does."""
NAMED = re.compile(r"(?:/v\d+)?/plans/([0-9a-f]{64})")
SHOWN = 128
"""Characters of an id that a client made up."""


class RequestLog:
    """ASGI middleware: route, status, seconds, bytes, and who and what it was about.

    Neither bodies nor headers nor query strings are logged, and no path of no route.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = _first(scope["headers"], HEADER).decode("latin-1")
        request_id = given if FIT.fullmatch(given) else uuid4().hex
        started, began = time.monotonic(), False
        status, taken, sent = 500, 0, 0
        told: dict[str, str] = {}

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message

        async def watched(message: Message) -> None:
            nonlocal began, status, sent
            if message["type"] == "http.response.start":
                began, status = True, message["status"]
                named = (HEADER, request_id.encode())
                message["headers"] = [*(h for h in message["headers"] if h[0] != HEADER), named]
                told.update(_named(message["headers"]))
            sent += len(message.get("body", b""))
            await send(message)

        trace.get_current_span().set_attribute("hplb.request", request_id)
        bound = structlog.contextvars.bind_contextvars(request=request_id)
        try:
            await self.app(scope, counted, watched)
        except Exception as error:
            if began:
                raise
            # Here and not further out, where nobody knows the request's id any more.
            await answer_to(error)(scope, receive, watched)
        finally:
            if status >= 400 or scope["path"] not in QUIET:
                say = log.error if status >= 500 and status != 503 else log.info
                say(
                    "request",
                    method=scope["method"],
                    route=getattr(scope.get("route"), "path", "none"),
                    status=status,
                    seconds=round(time.monotonic() - started, 6),
                    bytes_in=taken,
                    bytes_out=sent,
                    client=client_of(scope),
                    **(_in_path(scope) | told),
                )
            structlog.contextvars.reset_contextvars(**bound)


def _first(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """A header's first value, or nothing. Names are in small letters, as ASGI has them."""
    return next((value for key, value in headers if key == name), b"")


def _named(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    """The plan that an answer is, and the solve that it was put off to."""
    for name, value in headers:
        what = NAMING.get(name)
        found = NAMED.fullmatch(value.decode("latin-1")) if what else None
        if what and found:
            yield what, found[1]


def _in_path(scope: Scope) -> dict[str, str]:
    """What the path names, under the names that the rest of the log has for it."""
    given = scope.get("path_params")
    if not given:
        return {}
    kinds = {"plan_id": "plan", "node_id": "node", "name": scope["path"].split("/")[1].rstrip("s")}
    return {kinds[name]: str(value)[:SHOWN] for name, value in given.items() if name in kinds}
