"""A log's stream that nobody waits for: a thread hands on what is logged, read or not.

A pipe that nobody reads is full after some hundred lines, and whoever writes the next one waits:
that must not be the service, nor a node between two measurements.
"""

from collections import deque
from io import FileIO, UnsupportedOperation
from threading import Condition, Event, Thread
from typing import BinaryIO, TextIO

import structlog

log = structlog.get_logger()

MOST_BYTES = 2**22
"""That wait to be read; lines beyond them are lost."""
GATHER_S = 0.02
"""Lines of so long are written together: each by itself would cost its request a thread's turn."""
LAST_S = 1.0
"""For what still waits at the end."""


class LogStream:
    """Takes a line a `write`, and never waits with it.

    `lost` counts lines for which there was no room, or that could not be written; once lines are
    taken again, the log says how many were lost.
    """

    def __init__(self, out: TextIO) -> None:
        try:
            # Python's own has a lock, which a thread that waits keeps from the interpreter's end.
            self._out: BinaryIO | FileIO = FileIO(out.fileno(), "w", closefd=False)
        except UnsupportedOperation:  # in memory
            self._out = out.buffer
        self.lost = 0
        self._told = 0
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._closed = Event()
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> int:
        """Have a whole line written, or lost."""
        content = line.encode(errors="replace")
        with self._changed:
            if self._closed.is_set() or self._bytes + len(content) > MOST_BYTES:
                self.lost += 1
            else:
                self._waiting.append(content)
                self._bytes += len(content)
                self._changed.notify()
        return len(line)

    def flush(self) -> None:
        """Nothing: the thread does."""

    def close(self) -> None:
        """Write what waits, as far as it is read within `LAST_S`, and end."""
        with self._changed:
            self._closed.set()
            self._changed.notify()
        self._thread.join(LAST_S)

    def _run(self) -> None:
        while lines := self._next():
            try:
                self._write(b"".join(lines))
                lost = 0
            except OSError:  # the reader is gone, or the disk full
                lost = len(lines)
            with self._changed:
                self._bytes -= sum(len(line) for line in lines)
                self.lost += lost
                untold = 0 if lost else self.lost - self._told
                self._told += untold
            if untold:
                log.warning("log_lines_lost", lines=untold)

    def _next(self) -> deque[bytes]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed.is_set())
        self._closed.wait(GATHER_S)
        with self._changed:
            lines, self._waiting = self._waiting, deque()
        return lines

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            written = self._out.write(left)
            if written is None:  # a descriptor that was set not to wait
                raise BlockingIOError
            left = left[written:]
