"""What carries a conversation: a wire that is awaited, and one that blocks.

A conversation is written once, as coroutines (`api.client.conversation`). On a blocking wire
nothing in them ever waits for an event loop, so that one step takes each of them to its end.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol

import httpx

from api.client.loopback import is_loopback
from api.client.planner_errors import PlannerError

VERSION = "/v1"
"""Of the paths that are asked for."""
TIMEOUT_S = 10.0


class Wire(Protocol):
    """Sends requests, reads a body line by line, and pauses."""

    url: str

    def request(self, method: str, path: str, **parts: Any) -> httpx.Request:
        """A request to the planner; `parts` as httpx calls them."""

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Its answer, whole if it is a refusal; of others the body is still to come."""

    async def read(self, answer: httpx.Response) -> None:
        """Read a body whole."""

    def lines(self, answer: httpx.Response) -> AsyncIterator[str]:
        """Read a body as it comes."""

    async def close(self, answer: httpx.Response) -> None:
        """Leave the rest of a body unread."""

    async def pause(self, seconds: float) -> None:
        """Wait."""


class AwaitedWire:
    """On an event loop."""

    def __init__(
        self, url: str, api_key: str | None, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self.url = url.rstrip("/")
        if transport is None and _reached_directly(self.url):
            transport = httpx.AsyncHTTPTransport()
        self.http = httpx.AsyncClient(**_to(self.url, api_key), transport=transport)

    def request(self, method: str, path: str, **parts: Any) -> httpx.Request:
        return self.http.build_request(method, path, **parts)

    async def send(self, request: httpx.Request) -> httpx.Response:
        return await self.http.send(request, stream=True)

    async def read(self, answer: httpx.Response) -> None:
        await answer.aread()

    def lines(self, answer: httpx.Response) -> AsyncIterator[str]:
        return answer.aiter_lines()

    async def close(self, answer: httpx.Response) -> None:
        await answer.aclose()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class BlockingWire:
    """In the caller's thread."""

    def __init__(
        self, url: str, api_key: str | None, transport: httpx.BaseTransport | None
    ) -> None:
        self.url = url.rstrip("/")
        if transport is None and _reached_directly(self.url):
            transport = httpx.HTTPTransport()
        self.http = httpx.Client(**_to(self.url, api_key), transport=transport)

    def request(self, method: str, path: str, **parts: Any) -> httpx.Request:
        return self.http.build_request(method, path, **parts)

    async def send(self, request: httpx.Request) -> httpx.Response:
        return self.http.send(request, stream=True)

    async def read(self, answer: httpx.Response) -> None:
        answer.read()

    async def lines(self, answer: httpx.Response) -> AsyncIterator[str]:
        for line in answer.iter_lines():
            yield line

    async def close(self, answer: httpx.Response) -> None:
        answer.close()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)


def _reached_directly(url: str) -> bool:
    """Whether to keep httpx from the environment's proxies: a transport of one's own does.

    Raises PlannerError for a URL that no request can be made with.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise PlannerError(f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise PlannerError(f"{url!r} is no planner's URL: give one like http://127.0.0.1:8000")
    return is_loopback(parsed.host)


def _to(url: str, api_key: str | None) -> dict[str, Any]:
    """What every request to a planner has in common."""
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        raise PlannerError("HPLB_API_KEY: must be printable ASCII on one line")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return {"base_url": url + VERSION, "headers": headers}
