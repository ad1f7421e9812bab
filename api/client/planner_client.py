"""The planner's clients: one that blocks, safe across threads, and one for an event loop."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import httpx

from api.client.conversation import Conversation
from api.client.wire import AwaitedWire, BlockingWire

P = ParamSpec("P")
T = TypeVar("T")


class AsyncPlannerClient(Conversation):
    """A `Conversation` whose calls are awaited.

    A planner on this machine is asked directly, whatever proxy the environment names.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Raises PlannerError for a URL or key that no request can be made with."""
        wire = AwaitedWire(url, api_key, transport)
        super().__init__(wire)
        self.url = wire.url
        self._http = wire.http

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()


def _step(coroutine: Coroutine[Any, Any, T]) -> T:
    """Take a coroutine on a blocking wire to its end, in the one step that it needs."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    raise AssertionError("a blocking wire waits for nothing")


def _now(
    method: Callable[Concatenate[Conversation, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[PlannerClient, P], T]":
    """A call of a conversation that blocks until its answer is there."""

    @wraps(method)
    def call(client: "PlannerClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _step(method(client.conversation, *args, **kwargs))

    return call


def _each_now(
    method: Callable[Concatenate[Conversation, P], AsyncGenerator[T, None]],
) -> "Callable[Concatenate[PlannerClient, P], Iterator[T]]":
    """The same for a call that gives one thing after another."""

    @wraps(method)
    def call(client: "PlannerClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        found = method(client.conversation, *args, **kwargs)
        try:
            while True:
                try:
                    each = _step(found.__anext__())
                except StopAsyncIteration:
                    return
                yield each
        finally:
            _step(found.aclose())

    return call


class PlannerClient:
    """A `Conversation` whose calls block; safe across threads.

    A planner on this machine is asked directly, whatever proxy the environment names.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises PlannerError for a URL or key that no request can be made with."""
        wire = BlockingWire(url, api_key, transport)
        self.conversation = Conversation(wire)
        self.url = wire.url
        self._http = wire.http

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    version = _now(Conversation.version)
    ready = _now(Conversation.ready)
    plan = _now(Conversation.plan)
    start = _now(Conversation.start)
    follow = _each_now(Conversation.follow)
    solve = _now(Conversation.solve)
    cancel = _now(Conversation.cancel)
    solves = _now(Conversation.solves)
    check = _now(Conversation.check)
    find_plan = _now(Conversation.find_plan)
    plans = _now(Conversation.plans)
    delete_plan = _now(Conversation.delete_plan)
    compare = _now(Conversation.compare)
    profiles = _now(Conversation.profiles)
    profile = _now(Conversation.profile)
    put_profile = _now(Conversation.put_profile)
    delete_profile = _now(Conversation.delete_profile)
    cost_models = _now(Conversation.cost_models)
    put_deployment = _now(Conversation.put_deployment)
    deployments = _now(Conversation.deployments)
    deployment = _now(Conversation.deployment)
    delete_deployment = _now(Conversation.delete_deployment)
    nodes = _now(Conversation.nodes)
    delete_node = _now(Conversation.delete_node)
    register = _now(Conversation.register)
    renew = _now(Conversation.renew)
    assignment = _now(Conversation.assignment)
    post_measurements = _now(Conversation.post_measurements)
