"""Who shares a solve, who waits how long for it, and who ends it by going away."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.settings import Settings
from solver.plans import Plan
from tests.api.live import LATER, ask, until_ended
from tests.api.slow_solver import SlowSolver
from tests.api.world import fields, plan_body


def test_equal_requests_share_one_solve(live: httpx.Client, slow: SlowSolver) -> None:
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(live.post, "/plan", json=plan_body()) for _ in range(2)]
        slow.wait_for_start()
        solve = ask(live, fresh=True)
        slow.finish()
        bodies = [w.result(20).content for w in waiting] + [until_ended(live, solve).content]
    assert len(set(bodies)) == 1
    assert len(slow.calls) == 1


def test_a_fresh_request_after_the_end_is_solved_anew(live: httpx.Client, slow: SlowSolver) -> None:
    slow.finish(2)
    solve = ask(live)
    until_ended(live, solve)
    assert ask(live, fresh=True) == solve
    until_ended(live, solve)
    assert len(slow.calls) == 2


def _gives_up(live: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        live.post("/plan", json=plan_body(), timeout=0.3)


def test_a_client_that_goes_away_ends_its_own_solve_only(
    live: httpx.Client, slow: SlowSolver
) -> None:
    _gives_up(live)
    slow.wait_for_start()
    cancel = slow.calls[0]["cancel"]
    assert cancel.wait(20)
    assert live.get("/plans").json()["total"] == 0

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(live.post, "/plan", json=plan_body())
        slow.wait_for_start()
        _gives_up(live)
        time.sleep(0.7)
        assert not slow.calls[1]["cancel"].is_set()
        slow.finish()
        assert waiting.result(20).status_code == 200


def test_a_client_that_goes_away_does_not_end_what_was_asked_for_later(
    live: httpx.Client, slow: SlowSolver
) -> None:
    solve = ask(live)
    _gives_up(live)
    time.sleep(0.7)
    slow.finish()
    assert until_ended(live, solve).status_code == 200
    assert len(slow.calls) == 1


def test_it_waits_as_long_as_the_client_prefers(live: httpx.Client, slow: SlowSolver) -> None:
    slow.finish()
    done = live.post("/plan", json=plan_body(), headers={"Prefer": "respond-async, wait=20"})
    assert done.status_code == 200
    assert Plan.parse(done.content, "done").id == done.headers["content-location"].split("/")[-1]
    late = live.post("/plan", json=plan_body(gpus=3), headers={"Prefer": "wait=1"})
    assert late.status_code == 202
    slow.finish()
    assert until_ended(live, late.json()["id"]).status_code == 200


def test_more_than_a_client_may_have_is_told_at_once(
    live: httpx.Client, slow: SlowSolver, settings: Settings
) -> None:
    for gpus in range(1, settings.client_solves + 1):
        ask(live, gpus=gpus)
    more = live.post("/plan", json=plan_body(gpus=settings.client_solves + 1), headers=LATER)
    assert int(more.headers["retry-after"]) >= 1
    fields(more, 429)
    slow.finish(settings.client_solves)
