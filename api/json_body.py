"""Routes' bodies: bounded before they are parsed, and JSON that can be read in one way only."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.body_limit import BodyLimit
from api.body_reader import Refusal, UnreadError, read
from api.client.bodies import MeasurementBody
from api.problems import Problem, invalid
from api.service import Service
from profiles.model import ModelProfile
from solver.request import PlanRequest

SMALL = BodyLimit(most_bytes=2**18, most_values=2**14)
"""What is read at once: in a few milliseconds."""
MEASURED = BodyLimit(most_bytes=2**23, most_values=2**19)
"""Twice a round of a node that has every head of the largest public model to report."""
USUAL = BodyLimit(most_bytes=2**20, most_values=2**16)
BYTES_A_VALUE = 8
"""Of profiles and plans: their figures are longer, most of them."""


def limit_of(kind: type[BaseModel], most_bytes: int) -> BodyLimit:
    """What a body may be, where the service takes none above `most_bytes`."""
    if kind in (PlanRequest, ModelProfile):
        return BodyLimit(most_bytes, most_bytes // BYTES_A_VALUE)
    own = MEASURED if kind is MeasurementBody else USUAL
    return BodyLimit(min(most_bytes, own.most_bytes), own.most_values)


class StrictBody(APIRoute):
    """A route that refuses what costs too much to read, keys that come twice and halves of
    characters, by the field's name where there is one."""

    async def known(self, _: Request) -> Response | None:
        """What answers a request by its very text, before that is parsed: here nothing does."""
        return None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        kind = cast(type[BaseModel], self.body_field.field_info.annotation)

        async def strictly(request: Request) -> Response:
            strict = _StrictRequest(request, kind)
            try:
                return await self.known(strict) or await handle(strict)
            finally:
                strict.drop()

        return strictly


class _StrictRequest(Request):
    """What FastAPI asks for JSON gets the body's model, which it has nothing left to check of."""

    def __init__(self, request: Request, kind: type[BaseModel]) -> None:
        super().__init__(request.scope, request.receive)
        self._kind = kind
        self._large: list[bytes] = []
        self._held = 0

    async def body(self) -> bytes:
        """What was sent; of a large body its first byte, for FastAPI holds on to what it gets."""
        if not hasattr(self, "_body"):
            limit = limit_of(self._kind, self._service.settings.max_body_bytes)
            received = await limit.receive(self, self._service.bodies_held)
            self._body = received.content
            self._held = len(self._body)
            if self._held > SMALL.most_bytes or received.most_values > SMALL.most_values:
                self._body, self._large = received.content[:1], [received.content]
        return self._body

    def drop(self) -> None:
        """What it said is known, or nobody asks any more."""
        self._service.bodies_held.drop(self._held)
        self._held = 0

    async def json(self) -> BaseModel:
        content = await self.body()
        if not self._large:
            found = read(self._kind, content)
        else:
            try:
                found = await self._service.body_reader.read(self._kind, self._large)
            except UnreadError:
                detail = "the body was not read; try again"
                raise Problem(503, detail, headers={"Retry-After": "1"}) from None
            # A solve may take minutes, and only small texts are asked about again.
            self._body = b""
            self.drop()
        if isinstance(found, Refusal):
            raise invalid(found.fields) if found.fields else Problem(found.status, found.detail)
        return found

    @property
    def _service(self) -> Service:
        service: Service = self.app.state.service
        return service
