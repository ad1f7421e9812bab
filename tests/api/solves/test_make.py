"""A plan that was just made: kept, and answered from memory."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from api.solves import answer, make
from api.solves.make import NEWEST
from api.store.session import Session
from solver.plans import Plan
from tests.api.live import ask, until_ended
from tests.api.slow_solver import SlowSolver
from tests.api.world import World, plan_body


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of plans that are read from the store to answer with."""
    found: list[str] = []
    real = answer._load

    def load(session: Any, plan_id: str | None) -> Any:
        found.extend([] if plan_id is None else [plan_id])
        return real(session, plan_id)

    monkeypatch.setattr(answer, "_load", load)
    return found


def test_it_is_answered_as_it_is_stored_without_being_read(world: World, read: list[str]) -> None:
    made = world.client.post("/plan", json=plan_body())
    assert read == []
    plan = Plan.parse(made.content, "made")
    assert world.client.get(f"/plans/{plan.id}").content == made.content
    assert world.client.post("/plan", json=plan_body()).content == made.content
    assert read == [plan.id] * 2


def test_made_again_it_stays_what_is_stored(world: World, read: list[str]) -> None:
    first = world.client.post("/plan", json=plan_body())
    again = world.client.post("/plan", json=plan_body(fresh=True))
    assert again.content == first.content, "its id is its content's, its timings the first ones"
    assert read == []


def test_everybody_who_waits_gets_it_from_memory(
    live: httpx.Client, slow: SlowSolver, read: list[str]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(live.post, "/plan", json=plan_body()) for _ in range(2)]
        slow.wait_for_start()
        solve = ask(live, fresh=True)
        slow.finish()
        bodies = [w.result(20).content for w in waiting] + [until_ended(live, solve).content]
    assert len(set(bodies)) == 1
    assert read == []


def test_only_the_newest_are_held(world: World, read: list[str]) -> None:
    solve = ask(world.client, gpus=1)
    first = until_ended(world.client, solve)
    for gpus in range(2, NEWEST + 2):
        world.plan(gpus=gpus)
    assert read == []
    assert until_ended(world.client, solve).content == first.content
    assert read == [first.json()["id"]]


def test_a_connection_that_dies_in_the_commit_costs_no_plan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = Session.commit, []

    def dies_once(session: Session) -> None:
        if not lost:
            lost.append(session)
            gone = Exception("server closed the connection unexpectedly")
            raise OperationalError("COMMIT", {}, gone, connection_invalidated=True)
        real(session)

    monkeypatch.setattr(Session, "commit", dies_once)
    plan = world.plan()
    assert lost
    assert world.client.get(f"/plans/{plan.id}").status_code == 200
    promised = world.client.post("/plan", json=plan_body(gpus=3), headers={"Idempotency-Key": "k"})
    assert promised.status_code == 200


def test_what_could_not_be_kept_is_not_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError("no space left")

    monkeypatch.setattr(make.plan_store, "keep", full)
    assert world.client.post("/plan", json=plan_body()).status_code == 500
    monkeypatch.undo()
    assert world.client.get("/plans").json()["total"] == 0
    assert world.plan() == world.plan()
