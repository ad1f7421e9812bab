"""`hplb serve` as a process, started as often as a test asks."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.forked import Forked


class Served:
    """Starts `hplb serve` in a folder, as often as asked."""

    def __init__(self, folder: Path, within: Sequence[str] = ()) -> None:
        """`within`: a command that starts others, in a network of their own for example."""
        self.folder = folder
        self.within = list(within)
        self.processes: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`hplb serve`, told by arguments and environment variables."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HPLB_")}
        told = ["serve", "--port", "0", *arguments]
        process = self.started(told, {**inherited, **environment})
        self.processes.append(process)
        return process

    def started(self, told: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.within, sys.executable, "-m", "api.main", *told],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: str, **environment: str) -> httpx.Client:
        process = self.command(*arguments, **environment)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+?:\d+", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        return httpx.Client(base_url=found[0], timeout=120, trust_env=False)

    def refused(self, *arguments: str, **environment: str) -> str:
        process = self.command(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 2, (out, err)
        assert len(err.strip().splitlines()) == 1, err
        assert err.startswith("error: ")
        assert out == ""
        return err


class ForkedServed(Served):
    """The same, forked from a process that has loaded the service."""

    def started(self, told: list[str], environment: dict[str, str]) -> Any:
        # A worker that nobody uses takes seconds of a core to start.
        fewer = {"HPLB_SOLVER_WORKERS": "1", **environment}
        return Forked(told, folder=self.folder, environment=fewer)


@contextmanager
def serving_in(folder: Path, within: Sequence[str] = ()) -> Iterator[Served]:
    """Services of a folder, none of which outlives the test."""
    with ended(Served(folder, within)) as served:
        yield served


@contextmanager
def ended(served: Served) -> Iterator[Served]:
    """With none of its processes left at the end."""
    try:
        yield served
    finally:
        for process in served.processes:
            process.kill()
            process.communicate()
