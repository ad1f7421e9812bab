"""What a body may be before it is parsed: its bytes, its values and its time, as it arrives."""

import asyncio
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from api.problems import Problem

DRAINED_AT_MOST = 4
"""How many times the limit is read and dropped before the answer, for the client to see it: one
that is still sending when the connection closes often reports the reset and not the 413."""
PAUSE_S = 10.0
"""The longest that a client may be silent in the middle of a body."""
WHOLE_S = 60.0
"""The longest that a body may take."""
MOST_HELD = 2**26
"""Bytes of all bodies together."""
MARKS = b",:[{"
"""A JSON text has at most one value more than these."""
CLOSES = {"Connection": "close"}
"""What is left of a body that was refused is not waited for."""


class BodiesHeld:
    """The bytes of all bodies that are being received or wait to be read, together."""

    def __init__(self, most_bytes: int = MOST_HELD) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0

    def add(self, count: int) -> None:
        """Raises Problem: 503 where there are too many."""
        if self._bytes + count > self._most_bytes:
            detail = "too many large bodies at once; try again in a moment"
            raise Problem(503, detail, headers={"Retry-After": "2", **CLOSES})
        self._bytes += count

    def drop(self, count: int) -> None:
        """So many are read, or given up."""
        self._bytes -= count


@dataclass(frozen=True)
class Received:
    """A body, and a bound of the values that it holds."""

    content: bytes
    most_values: int


@dataclass(frozen=True)
class BodyLimit:
    """At most so many bytes and so many values.

    Parsed, a value costs up to a hundred times its bytes, and `[{},{},...]` holds one in three:
    bytes alone bound nothing.
    """

    most_bytes: int
    most_values: int

    async def receive(self, request: Request, held: BodiesHeld) -> Received:
        """The body, whose bytes are `held` until its reader drops them.

        Raises Problem: 413 where it is too large, 408 where it does not come, 503 where too many
        come at once; then none are held.
        """
        source = _Source(request)
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self.most_bytes:
            await self._drain(source)
            raise self._too_large()
        chunks: list[bytes] = []
        taken, values = 0, 1
        try:
            while source.more:
                chunk = await source.next()
                values += len(chunk) - len(chunk.translate(None, MARKS))
                if source.seen > self.most_bytes or values > self.most_values:
                    too_large = source.seen > self.most_bytes
                    chunks.clear()
                    await self._drain(source)
                    raise self._too_large() if too_large else self._too_many()
                held.add(len(chunk))
                taken += len(chunk)
                chunks.append(chunk)
        except BaseException:
            held.drop(taken)
            raise
        return Received(b"".join(chunks), values)

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self.most_bytes} bytes", headers=CLOSES)

    def _too_many(self) -> Problem:
        return Problem(413, f"the body holds more than {self.most_values} values", headers=CLOSES)

    async def _drain(self, source: "_Source") -> None:
        while source.more and source.seen <= DRAINED_AT_MOST * self.most_bytes:
            await source.next()


class _Source:
    """The chunks of a body, each in time."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._clock = asyncio.get_running_loop().time
        self._deadline = self._clock() + WHOLE_S
        self.more = True
        self.seen = 0

    async def next(self) -> bytes:
        try:
            async with asyncio.timeout_at(min(self._deadline, self._clock() + PAUSE_S)):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "the body did not come in time", headers=CLOSES) from None
        if message["type"] != "http.request":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        self.seen += len(chunk)
        self.more = message.get("more_body", False)
        return chunk
