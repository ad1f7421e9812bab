"""A search on the command line: how far it is and how long it may still take, and Ctrl-C."""

import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from datetime import timedelta
from threading import Event
from typing import TypeVar

from profiles.cli.progress import EVERY_S, shown
from profiles.time_left import Show
from solver.solution import Progress

T = TypeVar("T")

HEARD_WITHIN_S = 0.1


def search_shown(first: str) -> AbstractContextManager[Show]:
    """Progress of searches; where there is no terminal, quick ones pass in silence."""
    return shown(first, quiet_s=EVERY_S)


class Searches:
    """One search after the other, each with its time limit: told to a `Show`.

    The search's thread says what it does; `tick`, again and again, tells it with the time left at
    most, which runs while the search says nothing.
    """

    def __init__(self, show: Show, limit_s: float) -> None:
        self._show = show
        self._limit_s = limit_s
        self._begun = self._count = 0
        self._at = time.monotonic()
        self._words = ""
        self._progress: Progress | None = None

    def begin(self, words: str, count: int) -> None:
        """The next search starts, of `count` at most."""
        self._begun, self._count = self._begun + 1, count
        self._at, self._words, self._progress = time.monotonic(), words, None

    def report(self, progress: Progress) -> None:
        """How far the search under way is."""
        self._progress = progress

    def tick(self) -> None:
        """Tell it as it is now."""
        if not self._begun:
            return
        waiting = self._count - self._begun
        this_s = max(0.0, self._at + self._limit_s - time.monotonic())
        left = timedelta(seconds=math.ceil(this_s + waiting * self._limit_s))
        done, total, what = self._begun - 1, self._count, f"{self._words}, at most {left} left"
        found = self._progress
        if found is not None:
            gap = f"gap {100 * found.gap:.2f} %"
            if self._count > 1:
                what += f": {found.settled}/{found.layers} layers settled, {gap}"
            else:
                # Of a search by itself its layers are what is counted.
                done, total = found.settled, found.layers
                what = f"layers settled, {gap}" + (f"; {what}" if done < total else "")
        self._show(done, total, what)


def interruptible(work: Callable[[Event], T], tick: Callable[[], None] = lambda: None) -> T:
    """Run `work` beside the main thread, which hears Ctrl-C and then cancels the search.

    `tick` is called again and again meanwhile. The first Ctrl-C sets the event alone: an exception
    could come between the worker's start and whatever would catch it, and the search, never
    cancelled, would hold up the exit. The second ends the process at once. Raises
    KeyboardInterrupt once a cancelled search has ended.
    """
    cancelled = Event()

    def cancel(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        cancelled.set()

    before = signal.getsignal(signal.SIGINT)
    # What a shell starts in the background is born deaf to Ctrl-C, and stays so.
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, cancel)
    try:
        with ThreadPoolExecutor(max_workers=1) as pool:
            future = pool.submit(work, cancelled)
            # Python hears a signal in its main thread alone, which one that another thread was
            # given does not wake.
            while not wait([future], HEARD_WITHIN_S).done:
                tick()
    finally:
        signal.signal(signal.SIGINT, before)
    if cancelled.is_set():
        raise KeyboardInterrupt
    return future.result()
