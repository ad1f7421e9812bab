"""Which names the service answers to: a page that rebinds its own name to this machine's address
would otherwise speak for whoever looks at it."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import Keyring
from api.client.loopback import is_loopback
from api.problems import problem_response


class AllowedHosts:
    """ASGI middleware: 421 for a `Host` that is not among `names`; `*.example.org` is any below.

    Where none are named: any if the service asks for keys, which no such page has, else loopback.
    """

    def __init__(self, app: ASGIApp, names: str, keyring: Keyring) -> None:
        self.app = app
        self.names = [name.strip().lower() for name in names.split(",") if name.strip()]
        self.keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._allows(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
            return
        detail = "the service does not answer to this Host; HPLB_ALLOWED_HOSTS names those it does"
        await problem_response(421, detail)(scope, receive, send)

    def _allows(self, host: str) -> bool:
        # An IPv6 address is in brackets, with colons of its own.
        name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
        name = name.lower().rstrip(".")
        if not self.names:
            return self.keyring.asks or is_loopback(name.strip("[]"))
        return any(
            allowed in ("*", name) or (allowed.startswith("*.") and name.endswith(allowed[1:]))
            for allowed in self.names
        )
