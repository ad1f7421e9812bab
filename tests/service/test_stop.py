"""The service ends cleanly with solves of every method under way, and leaves nothing behind."""

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event
from typing import get_args

import httpx
import pytest

from solver.request import Method
from tests.api.live import LATER
from tests.api.served import Served
from tests.api.world import hard_body
from tests.service.conftest import times
from tests.service.processes import children, until_cbc, until_empty, until_gone, until_searching

SEARCHES = ("auto", "cp_sat", "ilp")


@contextmanager
def _load(client: httpx.Client, process: subprocess.Popen[str], method: str) -> Iterator[None]:
    """Solves of a method under way, more of them waiting."""
    if method in SEARCHES:
        asked = [
            client.post("/plan", json=hard_body(method=method, gpus=gpus), headers=LATER).json()
            for gpus in (5, 6, 7, 9)
        ]
        for solve in asked[:2]:
            until_searching(client, solve["id"])
        if method == "ilp":
            until_cbc(process.pid)
        yield
        return
    stop, numbers = Event(), count()
    answered = Event()

    def ask() -> None:
        while not stop.is_set():
            body = hard_body(method=method, gpus=8, context_tokens=65536 + 64 * next(numbers))
            try:
                assert client.post("/plan", json=body).status_code in (200, 503)
                answered.set()
            except httpx.TransportError:
                return

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            assert answered.wait(120)
            yield
        finally:
            stop.set()
            for each in asking:
                each.result(60)


@pytest.mark.parametrize("method", get_args(Method))
def test_it_stops_cleanly(served: Served, method: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for attempt in times(5, 50):
        sent = (signal.SIGTERM, signal.SIGINT)[attempt % 2]
        # Each worker takes a second and a half of a core to start: as few as are put to work.
        workers = "2" if method in SEARCHES else "1"
        client = served.start(TMPDIR=str(files), HPLB_SOLVER_WORKERS=workers)
        process = served.processes[-1]
        with _load(client, process, method):
            own = children(process.pid)
            assert own
            process.send_signal(sent)
            _, err = process.communicate(timeout=120)
        assert process.returncode == 128 + sent, (attempt, process.returncode, err[-2000:])
        assert "Traceback" not in err, err[-2000:]
        assert "FATAL" not in err, err[-2000:]
        until_gone(own)
        until_empty(files)


@pytest.mark.parametrize("method", ["cp_sat", "ilp"])
def test_killed_it_leaves_nothing_behind(served: Served, method: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for _ in times(3, 50):
        client = served.start(TMPDIR=str(files))
        process = served.processes[-1]
        with _load(client, process, method):
            own = children(process.pid)
            process.kill()
            process.communicate(timeout=120)
        until_gone(own)
        until_empty(files)
