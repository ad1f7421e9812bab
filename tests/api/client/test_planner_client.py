"""Both clients against answers made up here; against the service itself in test_wire.py."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import httpx
import pytest

from api.client.bodies import (
    COLUMNS,
    MEASUREMENTS_HEADER,
    Active,
    Assignment,
    DeviceSample,
    Incumbent,
    LeaseRenewal,
    MeasurementBatch,
    NodeRegistration,
    SolveCut,
    SolveEnd,
)
from api.client.conversation import ATTEMPTS, RETRY_AFTER_MOST_S, Conversation
from api.client.planner_client import AsyncPlannerClient, PlannerClient
from api.client.planner_errors import (
    BadRequestError,
    ConflictError,
    KeyRefusedError,
    NodeUnknownError,
    NotFoundError,
    PlannerAwayError,
    PlannerError,
    RefusedError,
    SupersededError,
)
from solver.request import PlanRequest
from tests.executor.fake_planner import FakePlanner
from tests.executor.plans import assignment

Handler = Callable[[httpx.Request], httpx.Response]
BATCH = MeasurementBatch(
    batch_id="b",
    deployment="prod",
    plan_id="p",
    generation=1,
    node_id="n",
    timing="alone",
    samples=[DeviceSample(layer=0, device=0, seconds=0.1, work={"launches": 1})],
)


class Awaited:
    """The awaited client with the blocking one's face: a loop for every call."""

    def __init__(self, handler: Handler, key: str | None) -> None:
        self._planner = AsyncPlannerClient("http://planner", key, httpx.MockTransport(handler))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def whole(*arguments: Any, **named: Any) -> Any:
            found = getattr(self._planner, name)(*arguments, **named)
            if isinstance(found, AsyncGenerator):
                return [each async for each in found]
            return await found

        return lambda *arguments, **named: asyncio.run(whole(*arguments, **named))


awaited = False


@pytest.fixture(autouse=True, params=["blocking", "awaited"])
def _either_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "awaited", request.param == "awaited")


def client(handler: Handler, key: str | None = None) -> Any:
    if awaited:
        return Awaited(handler, key)
    return PlannerClient("http://planner", key, httpx.MockTransport(handler))


NODE = NodeRegistration(
    node_id="n", boot_id="boot", devices=["cpu"], backend="torch", versions={"torch": "2"}
)
IDLE = LeaseRenewal(boot_id="boot")


def always(status: int, body: object = None) -> Handler:
    return lambda _: httpx.Response(status, json=body)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were paused for, none of them spent."""
    noted: list[float] = []

    async def pause(_: object, seconds: float) -> None:
        noted.append(seconds)

    for wire in ("AwaitedWire", "BlockingWire"):
        monkeypatch.setattr(f"api.client.wire.{wire}.pause", pause)
    return noted


def test_register_sends_what_the_contract_says() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"node_id": "n", "lease_s": 30})

    lease = client(handler, "secret").register(NODE)
    assert lease.lease_s == 30
    (request,) = seen
    assert (request.method, request.url.path) == ("POST", "/v1/nodes")
    assert request.headers["Authorization"] == "Bearer secret"
    assert json.loads(request.content) == {
        "node_id": "n",
        "boot_id": "boot",
        "devices": ["cpu"],
        "backend": "torch",
        "versions": {"torch": "2"},
    }


def test_renew_sends_active_and_error() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"node_id": "n", "lease_s": 30})

    renewal = LeaseRenewal(
        boot_id="boot", active=Active(deployment="prod", generation=3), error="out of memory"
    )
    client(handler).renew("n", renewal)
    (request,) = seen
    assert (request.method, request.url.path) == ("PUT", "/v1/nodes/n/lease")
    assert "Authorization" not in request.headers
    assert json.loads(request.content) == {
        "boot_id": "boot",
        "active": {"deployment": "prod", "generation": 3},
        "error": "out of memory",
    }


def test_assignment_arrives_whole() -> None:
    wanted = assignment()
    found = client(always(200, wanted.model_dump(mode="json"))).assignment("n", None, 1)
    assert found == wanted


def test_nothing_new_is_none_and_says_what_is_known() -> None:
    seen: list[httpx.URL] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url)
        return httpx.Response(204)

    assert client(handler).assignment("n", Active(deployment="a.b", generation=2), 20.0) is None
    assert dict(seen[0].params) == {"wait_s": "20.0", "deployment": "a.b", "generation": "2"}


def test_a_plan_that_is_not_what_its_id_says_is_refused() -> None:
    body = assignment().model_dump(mode="json")
    body["plan"]["budgets"][0][0] += 1
    with pytest.raises(PlannerError, match=r"is no assignment: .*not the content id of the plan"):
        client(always(200, body)).assignment("n", None, 1)


@pytest.mark.parametrize("field", ["devices", "layers"])
def test_indices_the_plan_lacks(field: str) -> None:
    body = assignment().model_dump(mode="json") | {field: [0, 9]}
    with pytest.raises(PlannerError, match=f"{field}: must be different indices below 2"):
        client(always(200, body)).assignment("n", None, 1)


def test_404_means_register_again() -> None:
    asks: list[Callable[[PlannerClient], object]] = [
        lambda c: c.renew("n", IDLE),
        lambda c: c.assignment("n", None, 1),
    ]
    for ask in asks:
        with pytest.raises(NodeUnknownError):
            ask(client(always(404, {"detail": "no node n"})))


def test_409_of_a_measurement_is_superseded_and_of_a_lease_a_refusal() -> None:
    gone = client(always(409, {"detail": "generation 2 is live"}))
    with pytest.raises(SupersededError, match="generation 2 is live"):
        gone.post_measurements(BATCH)
    with pytest.raises(RefusedError, match="generation 2 is live"):
        gone.renew("n", IDLE)


def test_a_problem_speaks_through_the_error() -> None:
    problem = {
        "title": "Unprocessable",
        "detail": "the body is wrong",
        "errors": [{"field": "samples.0.seconds", "message": "must be positive"}],
    }
    with pytest.raises(
        RefusedError,
        match=r"/measurements: 422 the body is wrong \(samples.0.seconds: must be positive\)",
    ):
        client(always(422, problem)).post_measurements(BATCH)


@pytest.mark.parametrize("body", ["<html>", '["list"]'])
def test_errors_that_are_no_problems(body: str) -> None:
    with pytest.raises(RefusedError, match="404 Not Found"):
        client(lambda _: httpx.Response(404, text=body)).register(NODE)


@pytest.mark.parametrize(
    ("status", "which"), [(401, "the planner's key"), (403, "a key that may do this")]
)
def test_a_wrong_key_names_the_variable(status: int, which: str) -> None:
    with pytest.raises(KeyRefusedError, match=f"set HPLB_API_KEY to {which}"):
        client(always(status, {"detail": "who are you"})).post_measurements(BATCH)


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_failing_planner_is_tried_again_then_away(status: int) -> None:
    calls: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(status)

    with pytest.raises(PlannerAwayError) as caught:
        client(handler).post_measurements(BATCH)
    assert caught.value.answered
    assert len(calls) == ATTEMPTS
    assert len({request.content for request in calls}) == 1


def test_a_call_succeeds_when_the_planner_returns_in_time() -> None:
    answers = iter([httpx.Response(503), httpx.Response(200, json={"node_id": "n", "lease_s": 5})])
    assert client(lambda _: next(answers)).renew("n", IDLE).lease_s == 5


def test_nobody_there() -> None:
    planner = FakePlanner().reserve()
    with pytest.raises(PlannerAwayError, match="does not answer") as caught:
        PlannerClient(planner.url).renew("n", IDLE)
    assert not caught.value.answered


@pytest.mark.parametrize("body", ["", "nonsense", "{}", '{"node_id": "n", "lease_s": 0}'])
def test_an_answer_that_is_none(body: str) -> None:
    with pytest.raises(PlannerError, match="PUT /nodes/n/lease: the answer is no lease"):
        client(lambda _: httpx.Response(200, text=body)).renew("n", IDLE)


@pytest.mark.parametrize("url", ["planner:8000", "ftp://planner", "http://", ""])
def test_urls_nobody_can_ask(url: str) -> None:
    with pytest.raises(PlannerError, match="URL"):
        PlannerClient(url)


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_keys_no_header_can_carry(key: str) -> None:
    with pytest.raises(PlannerError, match="HPLB_API_KEY: must be printable ASCII"):
        PlannerClient("http://planner", key)


def test_assignments_are_frozen_to_their_json() -> None:
    wanted = assignment()
    assert Assignment.model_validate_json(wanted.model_dump_json()) == wanted


class _ChangingPlanner:
    """One that reads columns, and is then replaced by one that does not; or the other way."""

    def __init__(self, reads_columns: bool) -> None:
        self.reads_columns = reads_columns
        self.forms: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        headers = {MEASUREMENTS_HEADER: COLUMNS} if self.reads_columns else {}
        if request.url.path == "/v1/nodes":
            return httpx.Response(200, json={"node_id": "n", "lease_s": 30}, headers=headers)
        body = json.loads(request.content)
        (form,) = {"samples", "columns"} & body.keys()
        self.forms.append(form)
        if form == "columns" and not self.reads_columns:
            return httpx.Response(422, json={"detail": "columns: extra inputs are not permitted"})
        receipt = {"batch_id": "b", "duplicate": False, "accepted": 1, "rejected": 0}
        return httpx.Response(200, json=receipt, headers=headers)


def test_columns_are_sent_to_those_that_read_them_and_to_no_other() -> None:
    planner = _ChangingPlanner(reads_columns=False)
    node = client(planner)
    node.register(NODE)
    assert node.post_measurements(BATCH).accepted == 1
    planner.reads_columns = True
    node.post_measurements(BATCH)  # whose answer says so
    node.post_measurements(BATCH)
    planner.reads_columns = False
    node.post_measurements(BATCH)
    node.post_measurements(BATCH)
    assert planner.forms == ["samples", "samples", "columns", "columns", "samples", "samples"]
    planner.reads_columns = True
    node.register(NODE)
    node.post_measurements(BATCH)
    assert planner.forms[-1] == "columns"


def test_both_clients_have_the_same_calls() -> None:
    calls = {name for name in vars(Conversation) if not name.startswith("_")}
    assert calls <= set(vars(PlannerClient))
    for name in calls:
        assert getattr(PlannerClient, name).__doc__ == getattr(Conversation, name).__doc__
        assert getattr(Conversation, name).__doc__


def test_a_list_is_asked_for_to_its_last_page() -> None:
    node = {
        "boot_id": "boot",
        "devices": ["cpu"],
        "backend": "torch",
        "versions": {},
        "live": True,
        "lease_expires_at": "2026-11-28T12:00:00+00:00",
        "active": None,
        "error": None,
    }

    def handler(request: httpx.Request) -> httpx.Response:
        name = f"node-{request.url.params['offset']}"
        return httpx.Response(200, json={"nodes": [node | {"node_id": name}], "total": 3})

    assert [found.node_id for found in client(handler).nodes()] == ["node-0", "node-1", "node-2"]


def test_repeats_come_ever_later_and_are_one_request(pauses: list[float]) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        raise httpx.ConnectError("refused")

    with pytest.raises(PlannerAwayError) as caught:
        client(handler).nodes()
    assert len(pauses) == ATTEMPTS - 1
    assert 0.05 <= pauses[0] <= 0.15
    assert 0.1 <= pauses[1] <= 0.3
    assert {request.headers["X-Request-ID"] for request in seen} == {caught.value.request_id}


def test_a_planner_says_when_to_come_back(pauses: list[float]) -> None:
    busy = httpx.Response(503, headers={"Retry-After": "2"})
    answers = iter([busy, httpx.Response(200, json={"nodes": [], "total": 0})])
    assert client(lambda _: next(answers)).nodes() == []
    assert pauses == [2.0]


def test_who_is_to_come_back_much_later_is_told(pauses: list[float]) -> None:
    later = str(int(RETRY_AFTER_MOST_S) + 1)
    with pytest.raises(PlannerAwayError) as caught:
        client(lambda _: httpx.Response(429, headers={"Retry-After": later})).nodes()
    assert caught.value.retry_after_s == float(later)
    assert pauses == []


def test_a_plan_is_asked_for_again_while_there_is_time(pauses: list[float]) -> None:
    plan = assignment().plan
    busy = [httpx.Response(503, headers={"Retry-After": "1"}) for _ in range(ATTEMPTS + 4)]
    answers = iter([*busy, httpx.Response(200, content=plan.model_dump_json())])
    request = PlanRequest(profile="p", gpus=2, context_tokens=4096)
    assert client(lambda _: next(answers)).plan(request, wait_s=60.0) == plan
    assert len(pauses) == ATTEMPTS + 4
    always_busy = client(lambda _: httpx.Response(503, headers={"Retry-After": "1"}))
    with pytest.raises(PlannerAwayError):
        always_busy.plan(request, wait_s=0.5)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, BadRequestError),
        (422, BadRequestError),
        (405, RefusedError),
    ],
)
def test_problems_are_errors_of_their_own_kind(status: int, kind: type[RefusedError]) -> None:
    said = {
        "title": "t",
        "status": status,
        "detail": "d",
        "errors": [{"field": "f", "message": "m"}],
    }
    answer = httpx.Response(status, json=said, headers={"X-Request-ID": "r-1"})
    with pytest.raises(RefusedError) as caught:
        client(lambda _: answer).nodes()
    assert type(caught.value) is kind
    assert caught.value.request_id == "r-1"
    assert caught.value.problem is not None
    assert caught.value.problem.model_dump() == {"type": "about:blank", **said}


def _sse(*events: tuple[str, dict[str, Any]]) -> bytes:
    return "".join(
        f": keepalive\n\nevent: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events
    ).encode()


def _better(revision: int) -> tuple[str, dict[str, Any]]:
    figures = {"makespan_s": 2.0, "lower_bound_s": 1.0, "gap": 0.5, "elapsed_s": 0.1}
    return "incumbent", {"revision": revision, "settled": 0, "layers": 2, **figures}


END = {"plan_id": "p", "status": "optimal", "makespan_s": 1.5, "lower_bound_s": 1.0, "gap": 0.3}


def test_a_solve_is_followed_over_broken_connections(pauses: list[float]) -> None:
    asked: list[str | None] = []
    streams = [_sse(_better(1), _better(2)), _sse(_better(3)), _sse(("done", END))]

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return httpx.Response(200, content=streams.pop(0))

    found = list(client(handler).follow("s"))
    assert [getattr(each, "revision", None) for each in found] == [1, 2, 3, None]
    assert found[-1] == SolveEnd(**END)  # type: ignore[arg-type]
    assert asked == [None, "2", "3"]
    assert len(pauses) == 2


def test_a_solve_that_was_cut_short_says_so() -> None:
    found = list(
        client(lambda _: httpx.Response(200, content=_sse(("cancelled", END)))).follow("s")
    )
    assert [type(each) for each in found] == [SolveCut]


def test_a_solve_that_failed_raises_its_problem() -> None:
    problem = {"title": "Unprocessable", "status": 422, "detail": "memory: nothing fits"}
    stream = _sse(_better(1), ("failed", problem))
    with pytest.raises(BadRequestError, match="the solve failed: memory: nothing fits"):
        list(client(lambda _: httpx.Response(200, content=stream)).follow("s"))


def test_a_stream_that_never_gets_anywhere_is_given_up(pauses: list[float]) -> None:
    with pytest.raises(PlannerAwayError, match="the stream ended before the solve did"):
        list(client(lambda _: httpx.Response(200, content=b"")).follow("s"))
    assert len(pauses) == ATTEMPTS - 1


def test_a_solve_forgotten_in_a_restart_is_asked_for_anew() -> None:
    plan = assignment().plan
    accepted = {"id": "s", "status": "queued", "events": "/plans/s/events", "cancel": "c"}
    solves = iter([404, 200])

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            assert request.headers["Prefer"] == "respond-async"
            return httpx.Response(202, json=accepted)
        if request.url.path == "/v1/plans/s/events":
            return httpx.Response(next(solves), content=_sse(_better(1), ("done", END)))
        assert request.url.path == "/v1/plans/p"
        return httpx.Response(200, content=plan.model_dump_json())

    told: list[Incumbent] = []
    request = PlanRequest(profile="p", gpus=2, context_tokens=4096)
    assert client(handler).solve(request, told.append) == plan
    assert [each.revision for each in told] == [1]


def test_who_stops_listening_leaves_the_stream() -> None:
    closed: list[bool] = []

    class Stream(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield _sse(_better(1))
            yield _sse(_better(2))

        def close(self) -> None:
            closed.append(True)

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Stream()))
    events = PlannerClient("http://planner", None, transport).follow("s")
    assert isinstance(next(events), Incumbent)
    assert not closed
    events.close()  # type: ignore[attr-defined]
    assert closed == [True]
