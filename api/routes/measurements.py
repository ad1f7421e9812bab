"""`/measurements`."""

from asyncio import wrap_future

from fastapi import APIRouter, Response

from api.auth import CallerDep
from api.client.bodies import COLUMNS, MEASUREMENTS_HEADER, MeasurementBody, MeasurementReceipt
from api.deployments.ingest import Arrival, take_in
from api.json_body import StrictBody
from api.problems import Problem, refusals
from api.service import ServiceDep

router = APIRouter(tags=["measurements"], route_class=StrictBody)

OUTCOMES = {404: "unknown", 409: "superseded", 422: "invalid"}
"""Of a batch that is refused, by its problem's status."""


@router.post(
    "/measurements",
    response_model=MeasurementReceipt,
    responses=refusals(400, 404, 409, 413, 422),
)
async def post_measurements(
    body: MeasurementBody, service: ServiceDep, caller: CallerDep
) -> Response:
    """Take in one round of one node; the same batch twice has no effect."""
    caller.check_node(body.node_id)
    arrival = Arrival(body, service.settings.drift_window, service.clock())
    try:
        intake = await wrap_future(service.database.submit(take_in, arrival))
    except Problem as problem:
        service.metrics.batches.labels(OUTCOMES[problem.status_code]).inc()
        raise
    receipt = intake.receipt
    service.metrics.batches.labels("duplicate" if receipt.duplicate else "accepted").inc()
    if not receipt.duplicate:
        for reason, count in intake.rejected.items():
            service.metrics.samples_rejected.labels(reason).inc(count)
        service.elected.taken_in(body.deployment, intake)
    return Response(
        receipt.model_dump_json(),
        headers={MEASUREMENTS_HEADER: COLUMNS},
        media_type="application/json",
    )
