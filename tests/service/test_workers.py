"""Worker processes that are killed, run out of memory or do not come to an end."""

import signal
from pathlib import Path

import httpx
import pytest

from solver.plans import Plan
from solver.verifier import verify
from tests.api.live import LATER, ask, cancel, until_ended
from tests.api.served import Served
from tests.api.world import fields, hard_body, plan_body, profile
from tests.service.conftest import times
from tests.service.processes import kill, until_cbc, until_gone, until_searching, workers


def _plans(client: httpx.Client, gpus: int) -> None:
    """It still makes plans."""
    answer = client.post("/plan", json=plan_body(gpus=gpus, fresh=True), timeout=120)
    assert answer.status_code == 200, answer.text
    assert verify(answer.json()).faults == []


def _ask_hard(client: httpx.Client, **changes: object) -> str:
    answer = client.post("/plan", json=hard_body(**changes), headers=LATER)
    assert answer.status_code == 202, answer.text
    solve = str(answer.json()["id"])
    until_searching(client, solve)
    return solve


def _another(attempt: int) -> dict[str, int]:
    """Another search in every attempt, all hard: on two dozen devices the largest head ends one."""
    return {"gpus": 5 + attempt % 8, "context_tokens": 131_072 - 64 * attempt}


@pytest.mark.parametrize("method", ["auto", "cp_sat", "ilp"])
def test_killed_it_is_a_problem_and_the_next_solve_works(served: Served, method: str) -> None:
    client = served.start()
    pid = served.processes[-1].pid
    for attempt in times(3, 20):
        solve = _ask_hard(client, method=method, **_another(attempt))
        killed = workers(pid)
        cbc = {until_cbc(pid)} if method == "ilp" else set()
        kill(killed, signal.SIGKILL)
        ended = until_ended(client, solve)
        fields(ended, 503)
        assert "SIGKILL" in ended.json()["detail"]
        until_gone(killed | cbc)
        _plans(client, 1 + attempt % 8)
    assert client.get("/readyz").status_code == 200


def test_out_of_memory_is_a_problem_and_the_next_solve_works(served: Served) -> None:
    # Of unlike devices costs are tables of heads times devices: these take 0.9 GB.
    client = served.start(HPLB_SOLVER_MEMORY_BYTES=str(512 * 2**20), HPLB_MAX_SOLVE_SIZE=str(2**25))
    wide = plan_body(
        profile=profile("wide", layers=64, heads=128), gpus=..., method="auto", time_limit_s=60
    )
    for attempt in times(2, 10):
        devices = [{"type": "h200", "count": 1000}, {"type": "h100", "count": 1000 + attempt}]
        answer = client.post("/plan", json={**wide, "devices": devices}, timeout=300)
        assert answer.status_code in (422, 503), answer.text
        fields(answer, answer.status_code)
        assert "memory" in answer.json()["detail"]
        _plans(client, 2)


@pytest.mark.parametrize("method", ["auto", "cp_sat", "ilp"])
def test_cancelled_a_search_hands_over_its_plan(served: Served, method: str) -> None:
    client = served.start()
    pid = served.processes[-1].pid
    for attempt in times(3, 20):
        solve = _ask_hard(client, method=method, **_another(attempt))
        ended = cancel(client, solve)
        if ended.status_code == 409:  # on a machine too busy to put it together in time
            continue
        assert ended.status_code == 200, ended.text
        assert verify(Plan.parse(ended.content, "cancelled").model_dump(mode="json")).faults == []
    assert len(workers(pid)) == 3


def test_whom_nobody_waits_for_any_more_is_ended(served: Served) -> None:
    """Four layers of a thousand heads: the search looks at its clock once in many seconds."""
    client = served.start()
    ask(client)
    huge = hard_body(profile=profile("huge", layers=4, heads=1024), gpus=512, context_tokens=4096)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/plan", json=huge, timeout=httpx.Timeout(30, read=3))
    while "hplb_plan_solves_running 0.0" not in client.get("/metrics").text:
        pass
    _plans(client, 3)


def test_stopped_while_workers_start_it_leaves_none(served: Served, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for _ in times(3, 20):
        served.start(TMPDIR=str(files))
        process = served.processes[-1]
        own = workers(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        assert process.returncode == 128 + signal.SIGTERM
        until_gone(own)
        assert list(files.iterdir()) == []
