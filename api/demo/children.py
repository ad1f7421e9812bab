"""Child processes of the demo: started with their output in a log, ended with their parent."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from profiles.errors import HplbError


class ChildError(HplbError):
    """A process the demo needs ended by itself; the message carries its last words."""


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
        with (self._folder / f"{name}.log").open("wb") as log:
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
                words = (self._folder / f"{name}.log").read_text(errors="replace").strip()
                last = " | ".join(words.splitlines()[-3:]) or "it said nothing"
                raise ChildError(f"{name} ended with exit code {process.returncode}: {last}")

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


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
