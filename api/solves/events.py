"""A solve as server-sent events: every reader for itself, resumed where its last one ended.

Encoded here and not by FastAPI's generator routes: those end in an exception group, and a
traceback in the log, whenever a reader goes away while something is on its way to it.
"""

from collections.abc import AsyncIterator

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from api.client.bodies import SolveEnd
from api.notify import wait_for
from api.problems import Problem, body_of
from api.solves.job import Outcome, SolveJob

KEEPALIVE_S = 15.0


class EventStream(StreamingResponse):
    """Not `EventSourceResponse`: a route that names that one has to be a generator."""

    media_type = "text/event-stream"


def stream(events: AsyncIterator[bytes]) -> EventStream:
    """A response that nobody on the way holds back."""
    return EventStream(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


async def follow(solve: SolveJob, after: int) -> AsyncIterator[bytes]:
    """The incumbents after a revision, and the end; cut off there where the service stops."""
    while True:
        change = solve.changes.next_change()
        incumbents, outcome = solve.since(after)
        if incumbents:
            after = incumbents[-1].revision
            yield b"".join(_event("incumbent", i, str(i.revision)) for i in incumbents)
        if outcome is not None:
            yield _end(outcome)
            return
        if solve.changes.closed:
            return
        await wait_for(change, KEEPALIVE_S)
        if not change.is_set():
            yield KEEPALIVE_COMMENT


async def done(plan: SolveEnd) -> AsyncIterator[bytes]:
    """The only event of a plan whose solve is no longer known."""
    yield _event("done", plan)


def _end(outcome: Outcome) -> bytes:
    if isinstance(outcome, Problem):
        return _event("failed", body_of(outcome))
    return _event("cancelled" if outcome.cut_short else "done", outcome.plan)


def _event(name: str, data: BaseModel, revision: str | None = None) -> bytes:
    body = data.model_dump_json(exclude_none=True)
    return format_sse_event(event=name, data_str=body, id=revision)
