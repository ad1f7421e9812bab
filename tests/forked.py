"""Commands of ours as processes that begin at once: forked from one that has loaded what they need.

To load torch or the service takes seconds of a core. What a process does once it runs, and how it
ends, is the same; that commands start from nothing is tested where they are started.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import IO

from api.main import run

LOADED = (
    "api.cli",
    "api.server",
    "executor.cli.evaluate",
    "executor.cli.node",
    "executor.engines.transformers.rank",
    "executor.node.daemon",
    "profiles.cli",
    "solver.cli",
)
_context = multiprocessing.get_context("forkserver")


def forked() -> ForkServerContext:
    """Starts processes from the one that has loaded them, which runs: what is loaded is settled."""
    _context.set_forkserver_preload(list(LOADED))
    ensure_running()
    return _context


class Forked:
    """`hplb ARGUMENTS`, by what tests use of a `subprocess.Popen` with pipes for text.

    Its output and its errors go to files, by their numbers, where those are given.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        (self.stdout, out), (self.stderr, err) = _written(stdout), _written(stderr)
        with Connection(out, readable=False) as first, Connection(err, readable=False) as second:
            told = (list(arguments), folder, dict(environment), first, second)
            self._process = forked().Process(target=_hplb, args=told)
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it has said: less than pipes hold."""
        self.wait(timeout)
        out, err = (pipe.read() if pipe else "" for pipe in (self.stdout, self.stderr))
        return out, err


def _written(file: int | None) -> tuple[IO[str] | None, int]:
    """Where a process writes: a file of this number, or else a pipe, which is read here."""
    if file is not None:
        return None, os.dup(file)
    read, write = os.pipe()
    return os.fdopen(read), write


def _hplb(
    arguments: list[str],
    folder: Path,
    environment: dict[str, str],
    out: Connection,
    err: Connection,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, pipe in enumerate((out, err), start=1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    tempfile.tempdir = None
    sys.argv = ["hplb", *arguments]
    run()
