"""`hplb serve` as a process, started as often as a test asks."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx


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
        process = subprocess.Popen(
            [
                *self.within,
                *(sys.executable, "-m", "api.main", "serve", "--port", "0"),
                *arguments,
            ],
            cwd=self.folder,
            env={**inherited, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def start(self, *arguments: str, **environment: str) -> httpx.Client:
        process = self.command(*arguments, **environment)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+?:\d+", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        return httpx.Client(base_url=found[0], timeout=30, trust_env=False)

    def refused(self, *arguments: str, **environment: str) -> str:
        process = self.command(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 2, (out, err)
        assert len(err.strip().splitlines()) == 1, err
        assert err.startswith("error: ")
        assert out == ""
        return err


@contextmanager
def serving_in(folder: Path, within: Sequence[str] = ()) -> Iterator[Served]:
    """Services of a folder, none of which outlives the test."""
    served = Served(folder, within)
    try:
        yield served
    finally:
        for process in served.processes:
            process.kill()
            process.communicate()
