"""Child processes of the demo: started with their output in a log, ended with their parent."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from api.client.planner_errors import PlannerAwayError
from profiles.errors import HplbError

POLL_S = 0.5
"""Seldom: every answer costs the planner CPU time beside the shares that are being timed."""
Found = TypeVar("Found")


class DemoError(HplbError):
    """A process the demo needs ended by itself, or what it waits for does not come."""


class Children:
    """`hplb` commands running beside this one in `folder`, one log each, told `settings`."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self._folder = folder
        # The demo's service is its own: what is set for the user's (a key, a database) stays out.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HPLB_")}
        self._environment = {**inherited, "NO_COLOR": "1", **settings}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Start `hplb ARGUMENTS`."""
        with (self._folder / f"{name}.log").open("wb") as log, _whole():
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", "api.main", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                env=self._environment,
                # Its own group: Ctrl-C reaches the demo alone, which then ends them in order.
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise if one has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                last = " | ".join(self._said(name)[-3:]) or "it said nothing"
                raise DemoError(f"{name} ended with exit code {process.returncode}: {last}")

    def result(self, name: str, seconds: float) -> str:
        """The last line of one that is to end by itself, once it has."""
        process = self._running[name]
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{name}: not within {seconds:.0f} s") from None
        if process.returncode == 0:
            del self._running[name]
        self.check()
        return self._said(name)[-1]

    def _said(self, name: str) -> list[str]:
        return (self._folder / f"{name}.log").read_text(errors="replace").strip().splitlines()

    def until(self, what: str, ready: Callable[[], Found | None], seconds: float) -> Found:
        """Ask until `ready` gives something; a planner not up yet is asked again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            with suppress(PlannerAwayError):
                if (found := ready()) is not None:
                    return found
            time.sleep(POLL_S)
        raise DemoError(f"{what}: not within {seconds:.0f} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self._running.values()):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._running.values()):
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _whole() -> Iterator[None]:
    """Ctrl-C comes once this is done: a process that was just started would be nobody's."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
