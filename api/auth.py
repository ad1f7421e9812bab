"""The key: asked for on every route but health and the page's files, compared in constant time."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import problem_response
from api.routes import page

OPEN_PATHS = frozenset({"/healthz", "/readyz"}) | page.OPEN_PATHS


class BearerKey:
    """ASGI middleware: 401 unless `Authorization: Bearer <key>` carries the key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self.key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_open(scope["path"]) or self._allows(scope):
            await self.app(scope, receive, send)
            return
        detail = "this service asks for a key: send Authorization: Bearer KEY"
        response = problem_response(401, detail, headers={"WWW-Authenticate": "Bearer"})
        await response(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # Headers are Latin-1 on the wire; a key outside ASCII arrives as its UTF-8 bytes.
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("latin-1"), self.key
        )


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(f"{page.FILES}/")
