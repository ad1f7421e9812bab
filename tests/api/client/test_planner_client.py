"""The client against answers made up here; against the service itself in test_wire.py."""

import json
from collections.abc import Callable

import httpx
import pytest

from api.client.bodies import (
    COLUMNS,
    MEASUREMENTS_HEADER,
    Active,
    Assignment,
    DeviceSample,
    LeaseRenewal,
    MeasurementBatch,
    NodeRegistration,
)
from api.client.planner_client import ATTEMPTS, PlannerClient
from api.client.planner_errors import (
    KeyRefusedError,
    NodeUnknownError,
    PlannerAwayError,
    PlannerError,
    RefusedError,
    SupersededError,
)
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


def client(handler: Handler, key: str | None = None) -> PlannerClient:
    return PlannerClient("http://planner", key, httpx.MockTransport(handler))


NODE = NodeRegistration(
    node_id="n", boot_id="boot", devices=["cpu"], backend="torch", versions={"torch": "2"}
)
IDLE = LeaseRenewal(boot_id="boot")


def always(status: int, body: object = None) -> Handler:
    return lambda _: httpx.Response(status, json=body)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.client.planner_client.RETRY_WAIT_S", 0.0)


def test_register_sends_what_the_contract_says() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"node_id": "n", "lease_s": 30})

    lease = client(handler, "secret").register(NODE)
    assert lease.lease_s == 30
    (request,) = seen
    assert (request.method, request.url.path) == ("POST", "/nodes")
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
    assert (request.method, request.url.path) == ("PUT", "/nodes/n/lease")
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


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_names_the_variable(status: int) -> None:
    with pytest.raises(KeyRefusedError, match="HPLB_API_KEY"):
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
        if request.url.path == "/nodes":
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
