"""`/plan` and `/plans`."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.errors import documented, not_found
from api.schemas import PlanPage
from api.service import NamePath, ServiceDep
from api.store import plans
from solver.plan import Plan
from solver.request import PlanRequest

router = APIRouter(tags=["plans"])

JSON = "application/json"


@router.post("/plan", response_model=Plan, responses=documented(400, 413, 422, 503))
async def make_plan(body: PlanRequest, request: Request, service: ServiceDep) -> Response:
    """Decide which GPU computes which attention head; an equal request gets the stored plan."""
    return Response(await service.planning.answer(body, request), media_type=JSON)


@router.get("/plans", response_model=PlanPage, responses=documented(422))
def list_plans(
    service: ServiceDep,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> dict[str, object]:
    """Plans in short, newest first."""
    with service.database.read() as session:
        page, total = plans.summaries(session, limit, offset)
    return {"plans": page, "total": total}


@router.get("/plans/{plan_id}", response_model=Plan, responses=documented(404, 422))
def get_plan(plan_id: NamePath, service: ServiceDep) -> Response:
    """A plan."""
    with service.database.read() as session:
        body = plans.find_body(session, plan_id)
    if body is None:
        raise not_found("plan", plan_id)
    return Response(body, media_type=JSON)
