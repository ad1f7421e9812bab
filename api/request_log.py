"""A line in the log for every request, and the id that everything logged on its way carries.

`X-Request-ID` is taken where it is fit to be logged, made otherwise, and returned.
"""

import re
import time
from collections.abc import Iterator
from uuid import uuid4

import structlog
from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import client_of
from api.problems import answer_to

log = structlog.get_logger()

HEADER = "X-Request-ID"
FIT = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by what watches the service: logged where they fail."""
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
        given = Headers(scope=scope).get(HEADER, "")
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
                MutableHeaders(scope=message)[HEADER] = request_id
                told.update(_named(Headers(raw=message["headers"])))
            sent += len(message.get("body", b""))
            await send(message)

        trace.get_current_span().set_attribute("hplb.request", request_id)
        with structlog.contextvars.bound_contextvars(request=request_id):
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


def _named(headers: Headers) -> Iterator[tuple[str, str]]:
    """The plan that an answer is, and the solve that it was put off to."""
    for header, what in (("content-location", "plan"), ("location", "solve")):
        found = NAMED.fullmatch(headers.get(header, ""))
        if found:
            yield what, found[1]


def _in_path(scope: Scope) -> dict[str, str]:
    """What the path names, under the names that the rest of the log has for it."""
    kinds = {"plan_id": "plan", "node_id": "node", "name": scope["path"].split("/")[1].rstrip("s")}
    given = scope.get("path_params", {})
    return {kinds[name]: str(value)[:SHOWN] for name, value in given.items() if name in kinds}
