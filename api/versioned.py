"""Paths with the interface's version: `/v1/plan` is what the routes call `/plan`.

Paths without one, as they were before there were versions, stand for the first.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from api.client.wire import VERSION


class Versioned:
    """ASGI middleware: takes the version off the path; what answers name begins with it again."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            before, _, path = scope["path"].partition(f"{VERSION}/")
            # Twice is no path: the router would take the second one off by itself, unseen by
            # those who ask whether the path is allowed.
            if not before and not f"/{path}/".startswith(f"{VERSION}/"):
                scope = {**scope, "path": f"/{path}", "root_path": VERSION}
        await self.app(scope, receive, send)
