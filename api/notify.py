"""Tells coroutines that something changed, without a thread or a connection per waiter."""

import asyncio
from contextlib import suppress
from threading import Lock


class Notifier:
    """`notify()` from any thread wakes every waiter, on whatever loop; `close()` ends them.

    `changes` counts them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._events: dict[asyncio.AbstractEventLoop, asyncio.Event] = {}
        self.closed = False
        self.changes = 0

    def notify(self) -> None:
        """Wake every waiter; without any it costs next to nothing."""
        with self._lock:
            self.changes += 1
            waited_for, self._events = self._events, {}
        for loop, event in waited_for.items():
            # The loop may be gone where the last measurements are still being worked on.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """Wake every waiter for good: the service stops."""
        self.closed = True
        self.notify()

    def next_change(self) -> asyncio.Event:
        """Set at the next change. Take it before looking, or a change in between is missed."""
        with self._lock:
            return self._events.setdefault(asyncio.get_running_loop(), asyncio.Event())


async def wait_for(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event is set or the time is up."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
