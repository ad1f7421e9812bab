"""Keys: who asks, by the secret that is sent, and what that one may do.

A service without a key in its settings or its database answers anyone.
"""

import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import Problem, as_problem, problem_response
from api.routes import page
from api.store import key_store
from api.store.database import Database
from api.store.session import UnavailableError

May = Literal["read", "plan", "node", "operate"]
ALL: frozenset[May] = frozenset(get_args(May))
INCLUDES: Mapping[May, frozenset[May]] = {
    "read": frozenset({"read"}),
    "plan": frozenset({"plan", "read"}),
    "node": frozenset({"node"}),
    "operate": frozenset({"operate", "read"}),
}
"""Who asks for plans, or decides what runs, may see what there is; a node sees its own work."""
HEALTH = frozenset({"/healthz", "/readyz"})
OPEN_PATHS = HEALTH | page.OPEN_PATHS
"""And the page's files: what they show, they ask for with a key that is typed in."""
NODE_PATH = re.compile(r"/nodes/([^/]+)/(?:assignment|lease)")
RULES: tuple[tuple[re.Pattern[str], frozenset[str], May], ...] = (
    (NODE_PATH, frozenset({"GET", "PUT"}), "node"),
    (re.compile(r"/nodes|/measurements"), frozenset({"POST"}), "node"),
    (re.compile(r"/plans?(?:/.*)?"), frozenset({"POST"}), "plan"),
    (re.compile(r"/profiles/.*"), frozenset({"PUT"}), "plan"),
    (re.compile(r".*", re.DOTALL), frozenset({"GET", "HEAD", "OPTIONS"}), "read"),
)
"""The first that fits; what none names changes what runs, or ends it: `operate`."""
RELOADED_S = 2.0
"""How long a key that was made, rotated or revoked is not known of."""


@dataclass(frozen=True)
class Caller:
    """Who asks; `node` is the only one that it may act as, where there is one."""

    name: str
    may: frozenset[May]
    node: str | None = None

    def check_node(self, node_id: str) -> None:
        """Raises Problem: 403 where it may not act as this node."""
        if self.node not in (None, node_id):
            raise Problem(403, f"key {self.name!r} may act as node {self.node!r} alone")


ANYONE = Caller("anyone", ALL)


class Keyring:
    """The keys in force: those of the database, read anew now and then, and the settings' own."""

    def __init__(self, database: Database, own: str | None) -> None:
        self._database = database
        self._own = {} if own is None else {key_store.digest_of(own): Caller("HPLB_API_KEY", ALL)}
        self._callers: Mapping[str, Caller] = self._own
        self._read_at = -RELOADED_S

    @property
    def stale(self) -> bool:
        """Whether to read the keys again before the next question."""
        return time.monotonic() - self._read_at >= RELOADED_S

    def reload(self) -> None:
        """Read the keys; where the database does not answer, those known before stay in force."""
        try:
            with self._database.read() as session:
                stored = {
                    key.digest: Caller(
                        key.name, frozenset().union(*(INCLUDES[s] for s in key.scopes)), key.node
                    )
                    for key in key_store.every(session)
                }
        except UnavailableError:
            if self._read_at < 0:
                raise
        else:
            self._callers = {**stored, **self._own}
        self._read_at = time.monotonic()

    @property
    def asks(self) -> bool:
        """Whether there is any key."""
        return bool(self._callers)

    def find(self, secret: str) -> Caller | None:
        """Whose secret it is."""
        given = key_store.digest_of(secret)
        return next((c for d, c in self._callers.items() if hmac.compare_digest(d, given)), None)


class BearerKey:
    """ASGI middleware: 401 without a key, 403 with one that may not do what is asked.

    `Authorization: Bearer SECRET`. Who asks is the request's `state.caller` from then on.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self.app = app
        self.keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        if self.keyring.stale:
            try:
                await run_in_threadpool(self.keyring.reload)
            except UnavailableError as error:
                await _refuse(as_problem(error), scope, receive, send)
                return
        caller = self._caller(scope) if self.keyring.asks else ANYONE
        refused = _refusal(caller, scope["method"], scope["path"])
        if refused is None:
            scope.setdefault("state", {})["caller"] = caller
            await self.app(scope, receive, send)
            return
        await _refuse(refused, scope, receive, send)

    def _caller(self, scope: Scope) -> Caller | None:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        # Headers are Latin-1 on the wire; a key outside ASCII arrives as its UTF-8 bytes.
        return self.keyring.find(given.strip().encode("latin-1").decode(errors="replace"))


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(f"{page.FILES}/")


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    answer = problem_response(problem.status_code, problem.detail, headers=problem.headers)
    await answer(scope, receive, send)


def needed(method: str, path: str) -> May:
    """What one has to be allowed for a request."""
    fits = (may for rule, methods, may in RULES if method in methods and rule.fullmatch(path))
    return next(fits, "operate")


def _refusal(caller: Caller | None, method: str, path: str) -> Problem | None:
    if caller is None:
        detail = "this service asks for a key: send Authorization: Bearer KEY"
        return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})
    may = needed(method, path)
    if may not in caller.may:
        has = ", ".join(sorted(caller.may))
        return Problem(403, f"key {caller.name!r} may {has}; this asks for {may}")
    node = NODE_PATH.fullmatch(path)
    try:
        if node is not None:
            caller.check_node(node[1])
    except Problem as problem:
        return problem
    return None


def client_of(scope: Scope) -> str:
    """Who asks, by the name of its key, else by its address: for shares and for the log."""
    caller = scope.get("state", {}).get("caller", ANYONE)
    if caller is not ANYONE:
        return str(caller.name)
    address = scope.get("client") or ("unknown", 0)
    return str(address[0])


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]
