"""Solves followed as server-sent events, on a real socket."""

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import httpx
import pytest

from api.service import Service
from solver.plans import Plan
from solver.verifier import verify
from tests.api.live import END, LATER, Sent, ask, cancel, ends, events, follow, until_ended
from tests.api.slow_solver import SlowSolver
from tests.api.world import Json, fields, plan_body


def test_events_come_in_order_to_every_reader_and_resume(
    live: httpx.Client, slow: SlowSolver
) -> None:
    solve = ask(live)
    with ThreadPoolExecutor(4) as pool:
        readers: list[Future[list[Sent]]] = [pool.submit(follow, live, solve) for _ in range(2)]
        with live.stream("GET", f"/plans/{solve}/events") as stream:
            coming = events(stream)
            for step in range(3):
                slow.tell(9.0 - step, 3.0)
                assert next(coming).data["makespan_s"] == 9.0 - step
        # The connection is gone; what comes now is there when the reader is back.
        slow.tell(6.5, 3.0)
        slow.tell(6.5, 3.5)
        late = pool.submit(follow, live, solve, "2")
        slow.finish()
        whole = [reader.result(20) for reader in readers]
        resumed = late.result(20)
    assert whole[0] == whole[1] == follow(live, solve)
    assert [sent.id for sent in whole[0]] == ["1", "2", "3", "4", "5", None]
    assert resumed == whole[0][2:]
    assert follow(live, solve, "5") == whole[0][-1:]
    assert follow(live, solve, "no number") == whole[0]
    figures = [(s.data["makespan_s"], s.data["lower_bound_s"]) for s in whole[0][:-1]]
    assert figures == [(9.0, 3.0), (8.0, 3.0), (7.0, 3.0), (6.5, 3.0), (6.5, 3.5)]
    assert [s.data["revision"] for s in whole[0][:-1]] == [1, 2, 3, 4, 5]
    plan = live.get(f"/plans/{solve}").json()
    assert ends(whole[0][-1]) == ("done", END)
    assert whole[0][-1].data["plan_id"] == plan["id"]
    assert whole[0][-1].data["makespan_s"] == plan["makespan_s"]
    assert follow(live, plan["id"]) == whole[0][-1:]


def test_a_reader_that_does_not_read_holds_nobody_up(live: httpx.Client, slow: SlowSolver) -> None:
    solve = ask(live)
    with live.stream("GET", f"/plans/{solve}/events") as idle:
        for number in range(20_000):
            slow.tell(1e6 - number, 1.0)
        slow.finish()
        assert until_ended(live, solve).status_code == 200
        caught_up = list(events(idle))
    assert caught_up[-1].event == "done"
    revisions = [sent.data["revision"] for sent in caught_up[:-1]]
    assert revisions == sorted(set(revisions))
    assert revisions[-1] == 20_000
    assert len(follow(live, solve)) <= 300


def test_readers_come_and_go_without_a_word(
    live: httpx.Client,
    slow: SlowSolver,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.solves.events.KEEPALIVE_S", 0.01)
    solve = ask(live)
    with live.stream("GET", f"/plans/{solve}/events") as stream:
        assert next(stream.iter_lines()) == ": ping"
    for number in range(20):
        with live.stream("GET", f"/plans/{solve}/events") as stream:
            for _ in range(number % 3):
                slow.tell(100.0 - number, 1.0)
            if number % 2:
                assert next(stream.iter_lines())
    slow.tell(1.0, 1.0)
    slow.finish()
    assert [sent.event for sent in follow(live, solve)][-2:] == ["incumbent", "done"]
    assert not caplog.records
    assert "error" not in capsys.readouterr().out


def test_the_end_of_the_service_ends_streams_and_solves(
    live: httpx.Client, slow: SlowSolver, service: Service
) -> None:
    solve = ask(live)
    with live.stream("GET", f"/plans/{solve}/events") as stream:
        coming = events(stream)
        slow.tell(4.0, 1.0)
        assert next(coming).event == "incumbent"
        service.stop()
        assert {sent.event for sent in coming} <= {"failed"}
    assert slow.calls[0]["cancel"].is_set()
    fields(live.post("/plan", json=plan_body(gpus=3), headers=LATER), 503)


def _hard() -> Json:
    """A search that has something to report at once, and no end soon."""
    return plan_body(
        profile="llama-3.1-8b-synthetic",
        gpus=5,
        context_tokens=131_072,
        method="auto",
        time_limit_s=300,
        tolerance=0,
    )


def test_a_real_search_reports_bounds_its_plan_and_stops_when_told(live: httpx.Client) -> None:
    solve = live.post("/plan", json=_hard(), headers=LATER).json()["id"]
    with live.stream("GET", f"/plans/{solve}/events") as stream:
        coming = events(stream)
        first = next(coming)
        cancelled = cancel(live, solve)
        seen = [first, *coming]
    assert cancelled.status_code == 200
    plan = Plan.parse(cancelled.content, "cancelled")
    assert verify(plan.model_dump(mode="json")).faults == []
    assert {sent.event for sent in seen[:-1]} == {"incumbent"}
    assert seen[-1].data["plan_id"] == plan.id
    for earlier, later in pairwise(seen[:-1]):
        assert int(earlier.id or 0) < int(later.id or 0)
        assert later.data["makespan_s"] <= earlier.data["makespan_s"]
        assert later.data["lower_bound_s"] >= earlier.data["lower_bound_s"]
    last = seen[-2].data
    assert plan.makespan_s <= last["makespan_s"] * (1 + 1e-9)
    assert last["lower_bound_s"] <= plan.makespan_s * (1 + 1e-9)
