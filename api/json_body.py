"""Bodies are JSON that can be read in one way only (`profiles.strict_json`)."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.problems import Problem, bad_field
from profiles.strict_json import JsonError, parse_json


class StrictBody(APIRoute):
    """A route that refuses keys that come twice and halves of characters, by the field's name."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        try:
            return parse_json(await self.body())
        except JsonError as error:
            if error.field:
                raise bad_field(error.field, error.message) from None
            raise Problem(400, f"the body is {error}") from None
