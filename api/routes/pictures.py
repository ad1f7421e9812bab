"""Plans drawn, alone, as measured and beside each other: SVG that loads and runs nothing."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response

from api.client.bodies import Compared
from api.problems import bad_field, not_found, refusals
from api.routes.deployments import get_deployment
from api.service import NamePath, Service, ServiceDep
from api.store import plan_store
from profiles.model import NAME_PATTERN
from solver.plans import Plan
from solver.report.comparison import Comparison, beside, notes
from solver.report.picture import measured_picture, plan_picture
from solver.report.svg import STYLE_HASH

router = APIRouter(tags=["plans"])

SVG = "image/svg+xml"
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src {STYLE_HASH}",
    "X-Content-Type-Options": "nosniff",
}
DRAWN: dict[int | str, dict[str, Any]] = {
    200: {"content": {SVG: {"schema": {"type": "string"}}}, "description": "A picture"}
}
MOST = 32
"""Plans beside each other."""

Layer = Annotated[int | None, Query(ge=0, le=2**31 - 1, description="One alone, large.")]
Generation = Annotated[
    int | None, Query(ge=1, le=2**31 - 1, description="A past one, instead of the live.")
]
PlanIds = Annotated[
    list[Annotated[str, Query(pattern=NAME_PATTERN)]],
    Query(alias="plan", min_length=1, max_length=MOST, description="Plans' ids."),
]


@router.get(
    "/plans/{plan_id}/picture",
    response_class=Response,
    responses={**DRAWN, **refusals(404, 422)},
)
def draw_plan(plan_id: NamePath, service: ServiceDep, layer: Layer = None) -> Response:
    """A plan drawn: devices as rows, the heads they compute, and the time they wait."""
    plan = _plan(service, plan_id)
    if layer is not None and layer >= len(plan.layers):
        last = len(plan.layers) - 1
        raise bad_field("layer", f"{layer} is not one of the plan's 0 to {last}")
    return _drawn(plan_picture(plan, layer))


@router.get(
    "/deployments/{name}/picture",
    tags=["deployments"],
    response_class=Response,
    responses={**DRAWN, **refusals(404, 422)},
)
def draw_deployment(name: NamePath, service: ServiceDep, generation: Generation = None) -> Response:
    """What was measured of a generation drawn beside what was predicted; 404 before there is."""
    view = get_deployment(name, service, generation)
    if view.measured is None:
        raise not_found("complete round measured of generation", f"{view.generation} of {name}")
    if view.traffic is not None:
        raise not_found("picture of the mixed steps of deployment", name)
    loads = np.array(view.measured.device_loads_s, dtype=np.float64)
    rounds = view.measured.rounds
    of = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    how = f"{of}, devices timed {view.measured.timing}"
    plan = _plan(service, view.plan_id)
    return _drawn(measured_picture(plan, view.layers, loads, how))


@router.get("/comparison", response_model=Compared, responses=refusals(404, 422))
def compare_plans(plans: PlanIds, service: ServiceDep) -> dict[str, object]:
    """Plans for one profile and workload side by side, in the order they are named."""
    found = _compared(service, plans)
    rows = [row.to_json() for row in found.rows]
    return {"title": found.title, "rows": rows, "notes": notes(found.rows)}


@router.get(
    "/comparison/picture",
    response_class=Response,
    responses={**DRAWN, **refusals(404, 422)},
)
def draw_comparison(plans: PlanIds, service: ServiceDep) -> Response:
    """The same plans drawn: their devices, busy and idle."""
    return _drawn(_compared(service, plans).picture())


def _compared(service: Service, plans: list[str]) -> Comparison:
    return beside([_plan(service, plan_id) for plan_id in plans])


def _plan(service: Service, plan_id: str) -> Plan:
    with service.database.read() as session:
        plan = plan_store.find(session, plan_id)
    if plan is None:
        raise not_found("plan", plan_id)
    return plan


def _drawn(svg: str) -> Response:
    return Response(svg, headers=HEADERS, media_type=SVG)
