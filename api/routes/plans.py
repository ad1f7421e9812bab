"""`/plan` and `/plans`."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth import client_of
from api.client.bodies import PlanCheck, PlanPage, SolveAccepted, SolveStatus
from api.json_body import StrictBody
from api.problems import refusals
from api.removal import remove_plan
from api.routes.paging import Limit, Offset
from api.service import NamePath, Service, ServiceDep
from api.solves.answer import Asker
from api.solves.job import SolveJob
from api.solves.kept_plan import KeptPlan
from api.solves.prefer import APPLIED, seconds_to_wait, urgency
from api.store import plan_store
from solver.plans import Plan
from solver.request import PlanRequest

JSON = "application/json"
RETRY_AFTER = {"Retry-After": "1"}
GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", re.IGNORECASE)
"""Said, and not to be left out."""


class _ByText(StrictBody):
    """A plan that was just asked for by the same text is sent before that is parsed again."""

    async def known(self, request: Request) -> Response | None:
        headers = request.headers
        # An idempotency key is written down, whatever it comes with.
        if "idempotency-key" in headers or headers.get("content-type") != JSON:
            return None
        service: Service = request.app.state.service
        plan = service.answerer.remembered.find(await request.body())
        return None if plan is None else await sent(plan, request)


making = APIRouter(tags=["plans"], route_class=_ByText)
router = APIRouter(tags=["plans"], route_class=StrictBody)


def _retry_after() -> dict[str, Any]:
    return {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}}


@making.post(
    "/plan",
    response_model=Plan,
    responses={
        202: {
            "model": SolveAccepted,
            "description": "Being solved; asked for with `Prefer`",
            "headers": _retry_after(),
        },
        **refusals(400, 409, 413, 422, 429, 503),
    },
)
async def make_plan(
    body: PlanRequest,
    request: Request,
    service: ServiceDep,
    prefer: Annotated[
        list[str] | None,
        Header(description="`respond-async`: 202 at once; `wait=N`: 202 after N seconds."),
    ] = None,
    priority: Annotated[
        str | None,
        Header(description="RFC 9218: `u=0` before, `u=7` after all others of this client."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[!-~]{1,128}$",
            description="Sent again with it within a day, a request gets the same answer.",
        ),
    ] = None,
) -> Response:
    """Decide which GPU computes which attention head; an equal request gets the stored plan."""
    text = await request.body() if idempotency_key is None else b""
    wait_s = seconds_to_wait(prefer or ())
    asker = Asker(client_of(request.scope), urgency(priority), idempotency_key, text)
    if wait_s is None:
        return await sent(await service.answerer.answer(body, asker, request), request)
    found = await service.answerer.answer_or_solve(body, asker, wait_s)
    if isinstance(found, KeptPlan):
        return await sent(found, request)
    url = url_of(found.id, request)
    accepted = SolveAccepted(
        id=found.id, status=found.status().status, events=f"{url}/events", cancel=f"{url}/cancel"
    )
    headers = {"Location": url, "Preference-Applied": APPLIED, **RETRY_AFTER}
    return Response(accepted.model_dump_json(), 202, headers, JSON)


@router.post("/plan/validate", response_model=PlanCheck, responses=refusals(400, 413, 422, 503))
def check_plan(body: PlanRequest, service: ServiceDep) -> PlanCheck:
    """Whether a request would be solved, and what is known of it, without solving it."""
    return service.answerer.check(body)


@router.get("/plans", response_model=PlanPage, responses=refusals(422))
def list_plans(service: ServiceDep, limit: Limit = 50, offset: Offset = 0) -> dict[str, object]:
    """Plans in short, newest first."""
    with service.database.read() as session:
        page, total = plan_store.summaries(session, limit, offset)
    return {"plans": page, "total": total}


@router.get(
    "/plans/{plan_id}",
    response_model=Plan,
    responses={
        304: {"description": "The plan is the one that the client has"},
        202: {
            "model": SolveStatus,
            "description": "The id is a solve's, which is under way",
            "headers": _retry_after(),
        },
        **refusals(404, 409, 422, 503),
    },
)
def get_plan(
    plan_id: NamePath,
    request: Request,
    service: ServiceDep,
    if_none_match: Annotated[
        str | None, Header(description="A plan's `ETag`: 304 where it is still that one.")
    ] = None,
) -> Response:
    """A plan by its own id, or by that of its solve; a solve's problem where that failed."""
    found = service.answerer.find_either(plan_id)
    if isinstance(found, KeptPlan) and _etag(found) in _tags(if_none_match):
        return Response(status_code=304, headers={"ETag": _etag(found)})
    return plan_response(found, request)


@router.delete("/plans/{plan_id}", status_code=204, responses=refusals(404, 409, 422))
async def delete_plan(plan_id: NamePath, service: ServiceDep) -> None:
    """Delete a plan that no deployment runs or ran; an equal request is solved anew."""
    await service.database.writing(lambda session: remove_plan(session, plan_id))
    service.answerer.forget(plan_id)


def url_of(name: str, request: Request) -> str:
    """The path of a plan or a solve, with the version that was asked with."""
    return f"{request.scope['root_path']}/plans/{name}"


def plan_response(answer: KeptPlan | SolveJob, request: Request) -> Response:
    """A plan, compressed for whom that is right, and where it is to be found; or how far its solve
    is."""
    if isinstance(answer, SolveJob):
        return Response(answer.status().model_dump_json(), 202, RETRY_AFTER, JSON)
    headers = {
        "Content-Location": url_of(answer.plan_id, request),
        "ETag": _etag(answer),
        "Vary": "Accept-Encoding",
    }
    if _takes_gzip(request):
        headers["Content-Encoding"] = "gzip"
        return Response(answer.compressed, headers=headers, media_type=JSON)
    return Response(answer.content, headers=headers, media_type=JSON)


async def sent(answer: KeptPlan | SolveJob, request: Request) -> Response:
    """The same, where a large plan's compression must not keep the loop from others."""
    if _takes_gzip(request) and "compressed" not in vars(answer):
        return await run_in_threadpool(plan_response, answer, request)
    return plan_response(answer, request)


def _takes_gzip(request: Request) -> bool:
    return GZIP.search(request.headers.get("accept-encoding", "")) is not None


def _etag(answer: KeptPlan) -> str:
    # Weak: it may be compressed or not.
    return f'W/"{answer.plan_id}"'


def _tags(if_none_match: str | None) -> set[str]:
    """What a client has, each as a weak tag."""
    tags = (tag.strip() for tag in (if_none_match or "").split(","))
    return {tag if tag.startswith("W/") else f"W/{tag}" for tag in tags}
