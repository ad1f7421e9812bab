"""Processes that work on sections, none beyond its time, each replaced where it dies on the way."""

import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.rows import BROKEN_DEVICE, Row, append, read, replace

POLL_S = 0.2
START_S = 90.0
"""Until a process's first file is there: it may have to load torch from a cold disk."""
GRACE_S = 20.0
"""What a section may take beyond its time where no case is under way."""
LAST_GRACE_S = 8.0
"""What everything may take beyond its time: a case under way is not broken off at once."""
MOST_DEATHS = 3
"""Processes that may die on a section before what is left of it is given up."""


@dataclass
class Worker:
    """A process, the sections it is to run, and since when it has been on the one it is on."""

    process: subprocess.Popen[bytes]
    names: list[str]
    current: str
    since: float


class Crew:
    """Runs sections in processes of their own and writes down what those cannot.

    A case that hangs, or that ends its process, gets a row that says so, and another process goes
    on behind it. `until`, seconds since 1970: when everything must end. `tiny`: nothing is late
    before that, since the interpreter's seconds mean nothing. `program`: what runs sections,
    called like `python -m benchmarks.gpu.suite`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tiny: bool,
        until: float,
        changed: Callable[[], None],
        program: Sequence[str] = (sys.executable, "-u", "-m", "benchmarks.gpu.suite"),
    ) -> None:
        self._folder, self._tiny, self._until = folder, tiny, until
        self._changed, self._program = changed, program
        self._deaths: Counter[str] = Counter()
        self._workers: list[Worker] = []

    def run(self, tasks: Sequence[Sequence[str]], at_once: int = 1) -> None:
        """One process for each of `tasks`, lists of sections, in their order; `at_once` at most.

        Sections that are complete already need none.
        """
        unfinished = ([x for x in task if not self._complete(x)] for task in tasks)
        waiting = deque(names for names in unfinished if names)
        try:
            while self._workers or (waiting and time.time() < self._until):
                while waiting and len(self._workers) < at_once:
                    self._workers.append(self._started(waiting.popleft()))
                time.sleep(POLL_S)
                self._workers = [each for each in self._workers if self._works(each)]
                self._changed()
        finally:
            for worker in self._workers:
                self._end(worker, "stopped")
            self._workers = []
            self._changed()

    def _started(self, names: list[str]) -> Worker:
        command = [*self._program, "--until", str(self._until), "--folder", str(self._folder)]
        command += [*(["--tiny"] if self._tiny else []), *names]
        return Worker(subprocess.Popen(command), names, names[0], time.time())

    def _works(self, worker: Worker) -> bool:
        """Whether any of its sections is still worked on; a process that died is replaced."""
        code = worker.process.poll()
        left = [name for name in worker.names if not self._complete(name)]
        if not left:
            worker.process.wait()
            return False
        if left[0] != worker.current:
            worker.current, worker.since = left[0], time.time()
        begun = bool(self._document(left[0]))
        if code is None:
            why = self._late(worker)
            if why is None:
                return True
            self._end(worker, why)
        else:
            self._lost(left[0], code)
        self._deaths[left[0]] += 1
        if not begun or self._deaths[left[0]] >= MOST_DEATHS:
            # A process that did not even begin would not the next time.
            left = left[1:]
        if not left or time.time() >= self._until:
            return False
        again = self._started(left)
        worker.process, worker.names = again.process, left
        worker.current, worker.since = left[0], again.since
        return True

    def _late(self, worker: Worker) -> str | None:
        """Why the process must be ended."""
        now, found = time.time(), self._document(worker.current)
        if now > self._until + LAST_GRACE_S:
            return "the run's time was up"
        if self._tiny:
            return None
        if not found:
            return "did not begin" if now > worker.since + START_S else None
        case = found["under_way"]
        if case:
            return "took too long" if now > case["until"] else None
        return "took too long" if now > found["until"] + GRACE_S else None

    def _end(self, worker: Worker, why: str) -> None:
        worker.process.kill()
        worker.process.wait()
        if not self._complete(worker.current):
            self._note(worker.current, {"out_of_time": why})

    def _lost(self, name: str, code: int) -> None:
        """A process ended by itself, or by the signal -`code`."""
        if code == -signal.SIGTERM:
            # `timeout` asks every process of the run for its end.
            self._note(name, {"out_of_time": "stopped"})
        elif code != BROKEN_DEVICE or self._document(name).get("under_way"):
            self._note(name, {"error": f"its process ended with exit code {code}"})

    def _note(self, name: str, why: Row) -> None:
        """A row for the case that a process was on when it ended."""
        found = self._document(name) or {"section": name, "complete": False}
        case = (found.get("under_way") or {"case": "section"})["case"]
        append(self._folder, name, {"case": case, **why})
        print(f"{name}: {case}: {next(iter(why.values()))}", flush=True)
        replace(self._folder / f"{name}.json", found | {"under_way": None})

    def _complete(self, name: str) -> bool:
        return bool(self._document(name).get("complete"))

    def _document(self, name: str) -> Row:
        return read(self._folder / f"{name}.json")
