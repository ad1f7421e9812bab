"""docs/tutorial.md is what happens: every command and its Python, one after another, as they stand.

The planner's port is a free one, and its processes end with the test.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.client import PlannerAwayError, PlannerClient
from api.demo.children import free_port
from tests.test_examples import ROOT, blocks

PAGE = ROOT / "docs" / "tutorial.md"
PORT = "8000"
UP_S = 120.0


def test_the_tutorial_goes_as_it_is_written(smollm2: Path, tmp_path: Path) -> None:
    port = str(free_port())
    folder = {"cwd": tmp_path, "env": {**os.environ, "PATH": _path()}}
    with _ended() as children:
        for language, text in blocks(PAGE):
            text = text.replace(f":{PORT}", f":{port}").replace(f"--port {PORT}", f"--port {port}")
            if language == "python":
                _until_up(f"http://127.0.0.1:{port}")
                told = subprocess.run(
                    [sys.executable, "-c", text], **folder, check=True, capture_output=True
                ).stdout.decode()
                generations = [int(line.split()[0]) for line in told.splitlines()[:3]]
                assert generations == sorted(set(generations))
                continue
            for command in re.findall(r"^\$ (.*)$", text, re.M):
                words = shlex.split(command, comments=True)
                if words[0] == "make":
                    continue  # This test stands on it.
                if words[-1] == "&":
                    children.append(subprocess.Popen(words[:-1], **folder, start_new_session=True))
                else:
                    subprocess.run(words, **folder, check=True)
    assert {"heads.png", "plan.json", "plan.svg", "planned", "back"} <= {
        made.name for made in tmp_path.iterdir()
    }
    found, model = (f / "config.json" for f in (tmp_path / "back", smollm2))
    assert found.read_bytes() == model.read_bytes()


def _path() -> str:
    """With `hplb` of this very environment first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@contextmanager
def _ended() -> Iterator[list[subprocess.Popen[bytes]]]:
    children: list[subprocess.Popen[bytes]] = []
    try:
        yield children
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGTERM)
        for child in children:
            child.wait(60)


def _until_up(url: str) -> None:
    planner, end = PlannerClient(url), time.monotonic() + UP_S
    while time.monotonic() < end:
        try:
            if planner.nodes():
                return
        except PlannerAwayError:
            pass
        time.sleep(0.1)
    pytest.fail(f"no node at {url} within {UP_S:g} s")
