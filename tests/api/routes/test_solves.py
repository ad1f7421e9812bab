"""Solves asked for and ended over HTTP, on a real socket."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.service import Service
from api.settings import Settings
from api.store.database import Database
from solver.plans import Plan
from solver.verifier import verify
from tests.api.in_process import InProcess
from tests.api.live import END, LATER, ask, cancel, ends, events, follow, serving, until_ended
from tests.api.slow_solver import SlowSolver
from tests.api.world import Clock, World, fields, plan_body


def test_asked_later_it_is_told_how_far_it_is_and_then_the_plan(
    live: httpx.Client, slow: SlowSolver
) -> None:
    answer = live.post("/plan", json=plan_body(), headers=LATER)
    assert answer.status_code == 202
    body = answer.json()
    solve = body["id"]
    assert body == {
        "id": solve,
        "status": body["status"],
        "events": f"/plans/{solve}/events",
        "cancel": f"/plans/{solve}/cancel",
    }
    assert len(solve) == 64
    assert answer.headers["location"] == f"/plans/{solve}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert int(answer.headers["retry-after"]) >= 1

    slow.wait_for_start()
    first = live.get(f"/plans/{solve}")
    assert first.status_code == 202
    assert int(first.headers["retry-after"]) >= 1
    assert (first.json()["status"], first.json()["makespan_s"]) == ("solving", None)
    with live.stream("GET", f"/plans/{solve}/events") as stream:
        slow.tell(4.0, 3.0, settled=2)
        assert next(events(stream)).event == "incumbent"
    told = live.get(f"/plans/{solve}").json()
    elapsed_s = told.pop("elapsed_s")
    assert told == {
        "id": solve,
        "status": "solving",
        "makespan_s": 4.0,
        "lower_bound_s": 3.0,
        "gap": 0.25,
        "settled": 2,
        "layers": 3,
    }
    assert elapsed_s > 0

    slow.finish()
    ended = until_ended(live, solve)
    plan = Plan.parse(ended.content, "ended")
    assert ended.status_code == 200
    assert ended.headers["content-location"] == f"/plans/{plan.id}"
    assert live.get(f"/plans/{plan.id}").content == ended.content
    stored = live.post("/plan", json=plan_body(), headers=LATER)
    assert (stored.status_code, stored.content) == (200, ended.content)
    assert len(slow.calls) == 1


def test_cut_short_the_best_is_kept_but_is_no_answer(live_world: World, slow: SlowSolver) -> None:
    live = live_world.client
    solve = ask(live)
    slow.wait_for_start()
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(follow, live, solve)
        cancelled = cancel(live, solve)
        seen = reader.result(20)
    assert cancelled.status_code == 200
    plan = Plan.parse(cancelled.content, "cancelled")
    assert verify(plan.model_dump(mode="json")).faults == []
    assert cancelled.headers["content-location"] == f"/plans/{plan.id}"
    assert ends(seen[-1]) == ("cancelled", END)
    assert seen[-1].data["plan_id"] == plan.id
    assert live.get(f"/plans/{plan.id}").content == cancelled.content
    assert live.get(f"/plans/{solve}").content == cancelled.content
    assert live.post(f"/plans/{solve}/cancel").content == cancelled.content

    live_world.register("a", 2)
    live_world.deploy(plan, ["a"])
    assert live_world.service.answerer.find(solve) is not None

    slow.finish()
    anew = live.post("/plan", json=plan_body())
    assert anew.status_code == 200
    assert len(slow.calls) == 2, "an equal request is solved anew"
    assert follow(live, solve)[-1].event == "done"
    late = live.post(f"/plans/{solve}/cancel")
    assert (late.status_code, late.content) == (200, anew.content)


def test_a_plan_that_was_cut_short_can_be_planned_again(
    live_world: World, slow: SlowSolver
) -> None:
    solve = ask(live_world.client)
    slow.wait_for_start()
    plan = cancel(live_world.client, solve).json()
    slow.finish()
    again = live_world.again(plan["id"])
    assert len(slow.calls) == 2
    assert again.profile.digest == plan["profile"]["digest"]


def test_what_waits_its_turn_is_cancelled_without_a_plan(
    live: httpx.Client, slow: SlowSolver
) -> None:
    running = [ask(live, gpus=gpus, method="auto") for gpus in (2, 3)]
    for _ in running:
        slow.wait_for_start()
    queued = ask(live, gpus=4, method="auto")
    assert live.get(f"/plans/{queued}").json()["status"] == "queued"
    metrics = live.get("/metrics").text
    assert "hplb_plan_solves_running 2.0" in metrics
    assert "hplb_plan_solves_queued 1.0" in metrics
    fields(live.post(f"/plans/{queued}/cancel"), 409)
    fields(live.get(f"/plans/{queued}"), 409)
    assert [(s.event, s.data["status"]) for s in follow(live, queued)] == [("failed", 409)]
    slow.finish(2)
    assert [until_ended(live, solve).status_code for solve in running] == [200, 200]
    assert len(slow.calls) == 2


def test_what_waits_its_turn_gets_it(live: httpx.Client, slow: SlowSolver) -> None:
    solves = [ask(live, gpus=gpus, method="auto") for gpus in (2, 3, 4)]
    slow.finish(3)
    assert [until_ended(live, solve).status_code for solve in solves] == [200] * 3


def test_a_failure_is_the_problem_that_waiting_would_have_got(live: httpx.Client) -> None:
    bad = {"budget": {"policy": "recovery"}}
    waited = live.post("/plan", json=plan_body(**bad))
    fields(waited)
    solve = ask(live, **bad)
    ended = until_ended(live, solve)
    assert (ended.status_code, ended.json()) == (422, waited.json())
    assert ended.headers["content-type"] == "application/problem+json"
    assert [(s.event, s.data) for s in follow(live, solve)] == [("failed", waited.json())]
    assert live.post(f"/plans/{solve}/cancel").json() == waited.json()


def test_a_fault_of_ours_is_no_end_of_the_service(
    live: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Plan:
        raise RuntimeError("inside words")

    monkeypatch.setattr("tests.api.in_process.make_plan", broken)
    answer = live.post("/plan", json=plan_body())
    fields(answer, 500)
    assert "inside words" not in answer.text
    solve = ask(live)
    assert follow(live, solve)[-1].data["status"] == 500
    assert live.get("/readyz").status_code == 200


def test_after_a_restart_a_solve_is_known_by_its_plan(
    live: httpx.Client, settings: Settings, clock: Clock
) -> None:
    solve = ask(live)
    plan = until_ended(live, solve).content
    unknown = "f" * 64
    with serving(
        Service.make(settings, Database.open(settings.database_url), clock, InProcess)
    ) as reborn:
        known = reborn.get(f"/plans/{solve}")
        assert (known.status_code, known.content) == (200, plan)
        assert known.headers["content-location"] == f"/plans/{known.json()['id']}"
        assert ends(follow(reborn, solve)[0]) == ("done", END)
        assert reborn.post(f"/plans/{solve}/cancel").content == plan
        fields(reborn.post(f"/plans/{known.json()['id']}/cancel"), 404)
        for path in (f"/plans/{unknown}", f"/plans/{unknown}/events"):
            fields(reborn.get(path), 404)
        fields(reborn.post(f"/plans/{unknown}/cancel"), 404)
        assert "plan_id" in fields(reborn.get("/plans/a%00b/events"))


def test_what_runs_and_what_waits_is_listed(live: httpx.Client, slow: SlowSolver) -> None:
    assert live.get("/solves").json() == {"solves": []}
    urgent = {**LATER, "Priority": "u=1, i"}
    asked = [
        live.post("/plan", json=plan_body(gpus=gpus, method="auto"), headers=headers).json()["id"]
        for gpus, headers in ((2, LATER), (3, LATER), (4, urgent))
    ]
    for _ in range(2):
        slow.wait_for_start()
    listed = live.get("/solves").json()["solves"]
    shown = {(solve["id"], solve["status"], solve["urgency"]) for solve in listed}
    states = [(asked[0], "solving", 3), (asked[1], "solving", 3), (asked[2], "queued", 1)]
    assert shown == set(states)
    assert {solve["client"] for solve in listed} == {"127.0.0.1"}
    slow.finish(3)
    for solve in asked:
        until_ended(live, solve)
    assert live.get("/solves").json() == {"solves": []}


def test_what_a_request_comes_to_is_told_without_solving_it(world: World, slow: SlowSolver) -> None:
    body = plan_body()
    before = world.client.post("/plan/validate", json=body).json()
    assert (before["plan_id"], before["size"], before["quick"]) == (None, 3 * 8 * 2, True)
    assert slow.calls == []
    slow.finish()
    plan = world.plan()
    after = world.client.post("/plan/validate", json=body).json()
    assert after == {**before, "plan_id": plan.id}
    searched = world.client.post("/plan/validate", json=plan_body(method="auto")).json()
    assert searched["quick"] is False
    assert "profile" in fields(world.client.post("/plan/validate", json=plan_body(profile="x")))
    long = world.client.post("/plan/validate", json=plan_body(time_limit_s=3600))
    assert "time_limit_s" in fields(long)


def test_sent_again_with_its_key_a_request_is_not_solved_again(
    world: World, slow: SlowSolver
) -> None:
    slow.finish(9)
    key = {"Idempotency-Key": "one"}
    first = world.client.post("/plan", json=plan_body(fresh=True), headers=key)
    again = world.client.post("/plan", json=plan_body(fresh=True), headers=key)
    assert (again.status_code, again.content) == (200, first.content)
    assert len(slow.calls) == 1
    fields(world.client.post("/plan", json=plan_body(gpus=3), headers=key), 422)
    assert len(slow.calls) == 1
    world.client.post("/plan", json=plan_body(fresh=True), headers={"Idempotency-Key": "two"})
    assert len(slow.calls) == 2
    world.clock.forward(25 * 3600)
    world.client.post("/plan", json=plan_body(fresh=True), headers=key)
    assert len(slow.calls) == 3


def test_a_solve_that_was_promised_is_asked_again_after_a_restart(
    live: httpx.Client, slow: SlowSolver, settings: Settings, clock: Clock, service: Service
) -> None:
    solve = ask(live, method="auto")
    slow.wait_for_start()
    service.stop()
    again = Service.make(settings, Database.open(settings.database_url), clock, InProcess)
    with serving(again) as reborn:
        slow.wait_for_start()
        assert reborn.get(f"/plans/{solve}").json()["status"] == "solving"
        slow.finish()
        Plan.parse(until_ended(reborn, solve).content, "after the restart")
    third = Service.make(settings, Database.open(settings.database_url), clock, InProcess)
    with serving(third) as kept:
        assert kept.get("/solves").json() == {"solves": []}
        assert kept.get(f"/plans/{solve}").status_code == 200
