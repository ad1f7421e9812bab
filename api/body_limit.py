"""The size of a body: counted as it arrives, so that a chunked one is stopped as well."""

from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem, problem_response

DRAINED_AT_MOST = 4
"""How many times the limit is read and dropped before the answer, for the client to see it: one
that is still sending when the connection closes often reports the reset and not the 413."""


class BodyLimit:
    """ASGI middleware: 413 for a body above `limit_bytes`, none of it kept."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        detail = f"the body is larger than {self.limit_bytes} bytes"
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > self.limit_bytes:
            await self._drain(receive, 0)
            await problem_response(413, detail)(scope, receive, send)
            return
        await self.app(scope, self._counting(receive, detail), send)

    def _counting(self, receive: Receive, detail: str) -> Callable[[], Awaitable[Message]]:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit_bytes:
                if message.get("more_body"):
                    await self._drain(receive, seen)
                raise Problem(413, detail)
            return message

        return counted

    async def _drain(self, receive: Receive, seen: int) -> None:
        more = True
        while more and seen <= DRAINED_AT_MOST * self.limit_bytes:
            message = await receive()
            seen += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
