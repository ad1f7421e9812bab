"""A service's processes and files, seen from outside."""

import os
import time
from contextlib import suppress
from pathlib import Path

import httpx


def children(pid: int) -> set[int]:
    """Processes that a process has started, and those that they have."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rpartition(")")[2].split()[1]
            )
    found: set[int] = set()
    while more := {own for own, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def command(pid: int) -> str:
    """A process's command line; nothing where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def workers(pid: int) -> set[int]:
    """A service's worker processes."""
    return {own for own in children(pid) if "spawn_main" in command(own)}


def running(pid: int) -> bool:
    """Whether any thread of a process is there and not only waited for: until the last has ended,
    its files and pipes stay open."""
    states = []
    for thread in Path(f"/proc/{pid}/task").glob("[0-9]*"):
        with suppress(OSError):
            states.append((thread / "stat").read_text().rpartition(")")[2].split()[0])
    return any(state not in "ZX" for state in states)


def until_gone(pids: set[int], seconds: float = 60) -> None:
    """Wait until none of some processes runs."""
    latest = time.monotonic() + seconds
    while left := {pid: command(pid) for pid in pids if running(pid)}:
        assert time.monotonic() < latest, f"still there: {left}"
        time.sleep(0.01)


def until_empty(folder: Path, seconds: float = 60) -> None:
    """Wait until a folder for temporary files has none of ours."""
    latest = time.monotonic() + seconds
    while left := [path.name for path in folder.iterdir()]:
        assert time.monotonic() < latest, f"left behind: {left}"
        time.sleep(0.01)


def until_searching(client: httpx.Client, solve: str) -> None:
    """Wait until a solve has told of its first plan."""
    while True:
        answer = client.get(f"/plans/{solve}")
        assert answer.status_code == 202, answer.text
        if answer.json()["makespan_s"] is not None:
            return
        time.sleep(0.05)


def until_cbc(pid: int) -> int:
    """Wait until a service runs CBC; its process."""
    while True:
        for own in children(pid):
            if command(own).split(" ")[0].endswith("cbc"):
                return own
        time.sleep(0.005)


def kill(pids: set[int], signal: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal)
