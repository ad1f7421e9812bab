"""`/solves`, `/plans/{id}/events` and `/plans/{id}/cancel`: solves listed, followed, ended."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from api.client.bodies import SolveEnd, SolveList, SolveStatus
from api.json_body import StrictBody
from api.problems import not_found, refusals
from api.routes.plans import sent
from api.service import NamePath, ServiceDep
from api.solves import events
from api.solves.job import SolveJob
from api.store import plan_store
from solver.plans import Plan

router = APIRouter(tags=["plans"], route_class=StrictBody)

REVISION = re.compile(r"[0-9]{1,9}")
EVENTS = (
    "`incumbent` {revision, makespan_s, lower_bound_s, gap, settled, layers, elapsed_s} with its "
    "revision as `id`, then one of `done` and `cancelled` {plan_id, status, makespan_s, "
    "lower_bound_s, gap} or `failed` (a problem)."
)


def _followed(plan_id: NamePath, service: ServiceDep) -> SolveJob | SolveEnd:
    """The solve to follow, or the plan where the solve is no longer known."""
    solve = service.answerer.find(plan_id)
    if solve is not None:
        return solve
    with service.database.read() as session:
        shown = plan_store.find_summary(
            session, plan_store.find_answer(session, plan_id) or plan_id
        )
    if shown is None:
        raise not_found("plan or solve", plan_id)
    return SolveEnd.model_validate({**shown, "plan_id": shown["id"]})


@router.get("/solves", response_model=SolveList)
def list_solves(service: ServiceDep) -> SolveList:
    """The solves that run or wait for their turn, the one asked for first first."""
    return SolveList(solves=service.answerer.under_way())


@router.get(
    "/plans/{plan_id}/events",
    response_class=events.EventStream,
    responses={200: {"description": EVENTS}, **refusals(404, 422)},
)
async def follow_solve(
    followed: Annotated[SolveJob | SolveEnd, Depends(_followed)],
    last_event_id: Annotated[
        str | None, Header(description="The last revision seen: later ones follow.")
    ] = None,
) -> events.EventStream:
    """Incumbents and bounds of a solve as they come, and how it ended."""
    if isinstance(followed, SolveEnd):
        return events.stream(events.done(followed))
    seen = last_event_id or ""
    after = int(seen) if REVISION.fullmatch(seen) else 0
    return events.stream(events.follow(followed, after))


@router.post(
    "/plans/{plan_id}/cancel",
    response_model=Plan,
    responses={
        202: {"model": SolveStatus, "description": "It has ended; its plan is being put together"},
        **refusals(404, 409, 422, 503),
    },
)
async def cancel_solve(plan_id: NamePath, request: Request, service: ServiceDep) -> Response:
    """End a solve with its best plan so far, which is kept but answers no later request.

    A solve that has ended is answered as `GET /plans/{id}` does.
    """
    return await sent(await service.answerer.cut_short(plan_id), request)
