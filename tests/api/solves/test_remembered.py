"""Answers remembered by the text of their requests: the same, until anything changes."""

import gzip
import json

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from api import json_body
from api.solves import remembered
from api.solves.kept_plan import KeptPlan
from api.solves.remembered import MOST_ANSWERS, RememberedAnswers
from tests.api.world import World, plan_body, profile

PLAN = KeptPlan("id", "{}")


def test_what_is_added_is_found() -> None:
    answers = RememberedAnswers()
    answers.add(b"a", PLAN, answers.changes)
    assert answers.find(b"a") is PLAN
    assert answers.find(b"b") is None


def test_a_change_forgets_all_and_what_was_looked_up_before_it() -> None:
    answers = RememberedAnswers()
    before = answers.changes
    answers.add(b"a", PLAN, before)
    answers.forget()
    answers.add(b"b", PLAN, before)
    assert (answers.find(b"a"), answers.find(b"b")) == (None, None)


def test_it_is_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "REMEMBERED_S", 0.0)
    answers = RememberedAnswers()
    answers.add(b"a", PLAN, answers.changes)
    assert answers.find(b"a") is None


def test_the_oldest_of_many_goes_and_large_ones_do_not_come() -> None:
    answers = RememberedAnswers()
    for i in range(MOST_ANSWERS + 1):
        answers.add(b"%d" % i, PLAN, answers.changes)
    answers.add(b"large", KeptPlan("id", "x" * 2**20), answers.changes)
    assert answers.find(b"0") is None
    assert answers.find(b"large") is None
    assert answers.find(b"%d" % MOST_ANSWERS) is PLAN


def test_no_database_is_asked_for_a_plan_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.plan(), world.plan()
    monkeypatch.setattr(remembered, "REMEMBERED_S", 60.0)
    world.service.answerer.remembered.forget()
    world.plan()

    def never() -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(world.service.database, "read", never)
    assert world.plan() == second == first


def test_it_is_found_by_its_text_before_that_is_parsed_and_counted_and_logged_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "REMEMBERED_S", 60.0)
    first = [world.plan(), world.plan()][0]

    def never(*_: object) -> None:
        raise AssertionError("the body was parsed")

    monkeypatch.setattr(json_body, "read", never)
    with capture_logs() as noted:
        assert world.plan() == first
    (said,) = [each for each in noted if each["event"] == "request"]
    assert (said["route"], said["status"], said["plan"]) == ("/plan", 200, first.id)
    counted = 'hplb_http_requests_total{method="POST",route="/plan",status="200"} 3.0'
    assert counted in world.client.get("/metrics").text


def test_the_same_text_as_something_else_than_json_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "REMEMBERED_S", 60.0)
    text = json.dumps(plan_body()).encode()
    for _ in range(2):
        json_too = {"content-type": "application/json"}
        assert world.client.post("/plan", content=text, headers=json_too).status_code == 200
    plain = {"content-type": "text/plain"}
    assert world.client.post("/plan", content=text, headers=plain).status_code == 422


def test_a_plan_that_was_deleted_is_made_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "REMEMBERED_S", 60.0)
    plan = [world.plan(), world.plan()][1]
    assert world.client.delete(f"/plans/{plan.id}").status_code == 204
    assert world.client.get(f"/plans/{plan.id}").status_code == 404
    assert world.plan().id == plan.id
    assert world.client.get(f"/plans/{plan.id}").status_code == 200


def test_another_profile_of_the_name_is_another_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "REMEMBERED_S", 60.0)
    plans = []
    for heads in (8, 4):
        assert world.client.put("/profiles/small", json=profile(heads=heads)).status_code == 200
        plans += [world.plan(profile="small") for _ in range(3)]
    assert [plan.architecture.query_heads for plan in plans] == [8, 8, 8, 4, 4, 4]


def test_a_fresh_plan_is_made_each_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "REMEMBERED_S", 60.0)
    for _ in range(2):
        world.plan(fresh=True)
    text = world.client.get("/metrics").text
    assert "hplb_plan_solve_seconds_count" in text
    assert " 2.0\n" in next(
        line + "\n" for line in text.splitlines() if "solve_seconds_count" in line
    )


@pytest.mark.parametrize(
    ("accepts", "packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, br", False),
        ("identity", False),
        ("x-gzipped", False),
    ],
)
def test_a_plan_is_compressed_for_whom_that_is_right(
    client: TestClient, accepts: str, packed: bool
) -> None:
    body = json.dumps(plan_body()).encode()
    plain = client.post(
        "/plan", content=body, headers={"content-type": "application/json", "accept-encoding": ""}
    )
    name = plain.headers["content-location"]
    for method, path in (("POST", "/plan"), ("GET", name)):
        headers = {"content-type": "application/json", "accept-encoding": accepts}
        with client.stream(method, path, content=body, headers=headers) as answer:
            raw = b"".join(answer.iter_raw())
        assert (answer.headers.get("content-encoding") == "gzip") is packed
        assert answer.headers["vary"] == "Accept-Encoding"
        assert (gzip.decompress(raw) if packed else raw) == plain.content
