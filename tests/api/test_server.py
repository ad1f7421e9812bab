"""`hplb serve` as a process: refusals in one line, kill -9, restart, and a prompt stop."""

import fcntl
import json
import signal
import socket
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from solver.plans import Plan
from tests.api.served import ForkedServed, Served, ended
from tests.api.world import World, hard_body

pytestmark = pytest.mark.slow


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with ended(ForkedServed(tmp_path)) as served:
        yield served


def _world(client: httpx.Client) -> World:
    return World(client, None, None)  # type: ignore[arg-type]


def test_what_was_answered_survives_kill_9(served: Served) -> None:
    world = _world(served.start())
    plan = world.plan()
    unmeasured = world.plan(device_type="a100")
    world.register("a", 2)
    view = world.deploy(plan, ["a"])
    batch = world.batch(plan, view, "a", [0, 1])
    assert world.post(batch).json()["duplicate"] is False
    measured = world.view()["measured"]

    served.processes[-1].kill()
    served.processes[-1].wait()
    world = _world(served.start())

    assert Plan.parse(world.client.get(f"/plans/{plan.id}").content, "stored") == plan
    assert world.plan(device_type="a100") == unmeasured
    assert world.post(batch).json()["duplicate"] is True
    after = world.view()
    assert after["measured"] == measured
    assert (after["generation"], after["history"]) == (1, view["history"])
    assigned = world.assigned("a")
    assert assigned is not None
    assert assigned["plan_id"] == plan.id


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_long_polls_and_solves_at_once(served: Served, sent: signal.Signals) -> None:
    client = served.start()
    world = _world(client)
    world.register("a")
    with ThreadPoolExecutor(2) as pool:
        poll = pool.submit(client.get, "/nodes/a/assignment?wait_s=55")
        solve = pool.submit(client.post, "/plan", json=hard_body(), timeout=60)
        while "hplb_plan_solves_running 1.0" not in client.get("/metrics").text:
            pass
        assert not poll.done()
        assert not solve.done()
        process = served.processes[-1]
        process.send_signal(sent)
        _, err = process.communicate(timeout=20)
        assert poll.result().status_code == 204
        assert solve.result().status_code == 503
    assert process.returncode == 128 + sent
    assert "Traceback" not in err


@pytest.mark.parametrize("read", [True, False])
def test_a_log_that_nobody_reads_keeps_nobody_waiting(served: Served, read: bool) -> None:
    client = served.start()
    process = served.processes[-1]
    assert process.stderr is not None
    fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    unread, before, asked = bytearray(4), b"", 0
    while unread != before:  # the pipe has taken what it can
        before = bytes(unread)
        for _ in range(50):
            assert client.get("/version").status_code == 200
        asked += 50
        fcntl.ioctl(process.stderr, termios.FIONREAD, unread)
    assert client.get("/healthz").status_code == 200
    if read:
        while asked:  # a line each, and all of them arrive
            line = json.loads(process.stderr.readline())
            asked -= line["event"] == "request"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM


def test_a_port_in_use_is_one_line(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "in use" in served.refused("--port", str(port))


def test_another_address_needs_a_key(served: Served) -> None:
    assert "HPLB_API_KEY" in served.refused("--host", "0.0.0.0")
    assert "HPLB_API_KEY" in served.refused("--host", "0.0.0.0", HPLB_API_KEY="")


def test_with_a_key_it_listens_and_asks_for_it(served: Served) -> None:
    client = served.start(HPLB_API_KEY="secret")
    assert client.get("/plans").status_code == 401
    assert client.get("/plans", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_a_database_that_cannot_be_used_is_one_line(served: Served) -> None:
    (served.folder / "bad.db").write_bytes(b"no database at all, just words " * 500)
    assert "not a database" in served.refused("--database-url", "sqlite:///bad.db")
    assert "unable to open" in served.refused("--database-url", "sqlite:////no/where/x.db")


def test_settings_that_make_no_sense_are_one_line(served: Served) -> None:
    assert "solver_workers" in served.refused(HPLB_SOLVER_WORKERS="many")


@pytest.mark.parametrize(
    "arguments",
    [["--database-url", "foo"], ["--database-url", "sqlite://"], ["--host", "a..b"]],
)
def test_settings_that_cannot_work_are_one_line(served: Served, arguments: list[str]) -> None:
    served.refused(*arguments, HPLB_API_KEY="key")
