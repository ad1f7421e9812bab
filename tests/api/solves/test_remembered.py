"""Answers remembered by the text of their requests: the same, until anything changes."""

import gzip
import json

import pytest
from fastapi.testclient import TestClient

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
