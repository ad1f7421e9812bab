"""Connections that only hold on are closed.

uvicorn waits for a first request for ever, for each byte of a head anew, and for a client that does
not take its answer.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""The longest from a connection, or an answer, to the whole head of the next request."""
UNREAD_S = 60.0
"""The longest that a client may take nothing of an answer that is more than the buffers hold."""


class PromptProtocol(H11Protocol):
    """Bodies have limits of their own (`api.body_limit`); uvicorn's, between requests, is 5 s."""

    _head: asyncio.TimerHandle | None = None
    _head_by = 0.0
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()

    def on_response_complete(self) -> None:
        # Before a request that has come meanwhile is taken up.
        self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def _await_head(self) -> None:
        """One timer a connection: one a request, cancelled, would stay in the loop for `HEAD_S`."""
        self._head_by = self.loop.time() + HEAD_S
        if self._head is None:
            self._head = self.loop.call_at(self._head_by, self._look_for_head)

    def _look_for_head(self) -> None:
        self._head = None
        if self.loop.time() < self._head_by:
            self._head = self.loop.call_at(self._head_by, self._look_for_head)
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()
