"""Tells long polls that something changed, without a thread or a connection per waiter."""

import asyncio
from contextlib import suppress


class Notifier:
    """`changed()` from any thread wakes every waiter on the event loop; `close()` ends them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self.closed = False

    def bind(self) -> None:
        """Call on the event loop before anything waits."""
        self._loop = asyncio.get_running_loop()

    def changed(self) -> None:
        """Wake every waiter."""
        if self._loop is not None:
            # The loop may be gone where the last measurements are still being worked on.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """Wake every waiter for good: the service stops."""
        self.closed = True
        self.changed()

    def next_change(self) -> asyncio.Event:
        """Set at the next change. Take it before looking, or a change in between is missed."""
        return self._event

    def _wake(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


async def wait_for(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event is set or the time is up."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
