"""`/measurements`."""

from fastapi import APIRouter

from api.client.bodies import MeasurementBatch, MeasurementReceipt
from api.deployments.ingest import take_in
from api.json_body import StrictBody
from api.problems import Problem, refusals
from api.service import ServiceDep

router = APIRouter(tags=["measurements"], route_class=StrictBody)


@router.post(
    "/measurements",
    response_model=MeasurementReceipt,
    responses=refusals(400, 404, 409, 413, 422),
)
def post_measurements(body: MeasurementBatch, service: ServiceDep) -> MeasurementReceipt:
    """Take in one round of one node; the same batch twice has no effect."""
    try:
        window = service.settings.drift_window
        intake = take_in(service.database, body, window, service.clock())
    except Problem as problem:
        outcome = "superseded" if problem.status_code == 409 else "refused"
        service.metrics.batches.labels(outcome).inc()
        raise
    receipt = intake.receipt
    service.metrics.batches.labels("duplicate" if receipt.duplicate else "accepted").inc()
    if not receipt.duplicate:
        service.metrics.samples_rejected.inc(receipt.rejected)
        service.refiner.take_up(body.deployment, intake.kinds)
    return receipt
