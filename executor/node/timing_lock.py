"""One share at a time on an accelerator, machine-wide: what "timed alone" rests on.

The lock is an advisory `flock` on a file in the temporary directory, so that it binds every
executor that shares that directory (containers must mount it) and dies with its holder.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from executor.errors import StateError

POLL_S = 0.005


class InterruptedWait(Exception):  # noqa: N818 - a signal to the caller, not a fault
    """Waiting ended because there is nothing left to wait for."""


def lock_path(accelerator: str) -> Path:
    """The lock file of `cpu` or `cuda:i`."""
    return Path(tempfile.gettempdir()) / f"hplb-timing-{accelerator.replace(':', '')}.lock"


@contextmanager
def timing_lock(accelerator: str, interrupted: Callable[[], bool]) -> Iterator[None]:
    """Hold the accelerator for the `with` block.

    Raises InterruptedWait when `interrupted()` turns true before the lock is free, StateError
    when the lock file cannot be opened.
    """
    handle = _open(lock_path(accelerator))
    try:
        while not _try_lock(handle):
            if interrupted():
                raise InterruptedWait
            time.sleep(POLL_S)
        yield
    finally:
        os.close(handle)
        # Without this pause the holder would be back before any other executor polls again.
        time.sleep(2 * POLL_S)


def _open(path: Path) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            return os.open(path, flags | os.O_CREAT, 0o644)
    except OSError as error:
        raise StateError(f"{path}: cannot be opened as a lock: {error.strerror}") from None


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
