"""Takes in a batch of measurements: once, whole or not at all, and only for what is live."""

from dataclasses import dataclass

import numpy as np

from api.client.bodies import DeviceSample, MeasurementBatch, MeasurementReceipt
from api.deployments import deploy
from api.deployments.plausible import believable, check_heads, check_places, work_counts
from api.problems import Problem, bad_field, not_found
from api.store import plan_store, recovery_store, sample_store
from api.store.database import ConflictError, Database, Session
from api.store.tables import StoredBatch, StoredNode, StoredSample
from profiles.cost.work import Phase
from solver.planning.predict import shard_work
from solver.plans import Plan


@dataclass(frozen=True)
class Intake:
    """What became of a batch, and the device types and phases of its accepted samples."""

    receipt: MeasurementReceipt
    kinds: frozenset[tuple[str, Phase]] = frozenset()


def take_in(database: Database, batch: MeasurementBatch, window: int, now: float) -> Intake:
    """Store a batch unless its id was seen before, however many post it at once.

    Of heads' recovery a node's newest `window` batches are kept.

    Raises Problem: 404 unknown deployment or plan, 409 superseded generation, 422 samples of
    devices or layers that the node does not run. Nothing is stored then.
    """
    try:
        with database.write() as session:
            return _seen(session, batch.batch_id) or _store(session, batch, window, now)
    except ConflictError:
        with database.read() as session:
            seen = _seen(session, batch.batch_id)
        if seen is None:
            raise
        return seen


def _seen(session: Session, batch_id: str) -> Intake | None:
    stored = sample_store.find_batch(session, batch_id)
    return Intake(_receipt(stored, duplicate=True)) if stored else None


def _receipt(stored: StoredBatch, *, duplicate: bool) -> MeasurementReceipt:
    return MeasurementReceipt(
        batch_id=stored.batch_id,
        duplicate=duplicate,
        accepted=stored.accepted,
        rejected=stored.rejected,
    )


def _store(session: Session, batch: MeasurementBatch, window: int, now: float) -> Intake:
    plan = plan_store.find(session, batch.plan_id)
    if plan is None:
        raise not_found("plan", batch.plan_id)
    deployment = deploy.find(session, batch.deployment)
    if batch.generation != deployment.generation:
        raise Problem(
            409,
            f"generation {batch.generation} of {batch.deployment!r} is not live; "
            f"it is on generation {deployment.generation}",
        )
    node = session.get(StoredNode, batch.node_id)
    if node is None or node.deployment != deployment.name:
        raise Problem(409, f"node {batch.node_id!r} does not serve {batch.deployment!r}")
    if batch.plan_id != deployment.plan_id:
        raise bad_field("plan_id", f"generation {batch.generation} runs plan {deployment.plan_id}")
    check_places(batch.samples, node.node_id, node.part, deployment.layers)
    for i, sample in enumerate(batch.samples):
        check_heads(sample, plan, f"samples.{i}.heads")
    work = np.array([work_counts(s, f"samples.{i}.work") for i, s in enumerate(batch.samples)])
    planned = {layer: shard_work(plan, layer) for layer in {s.layer for s in batch.samples}}
    believed = [
        sample
        for sample, row in zip(batch.samples, work, strict=True)
        if believable(sample, row, planned[sample.layer][sample.device], plan)
    ]
    stored = StoredBatch(
        batch_id=batch.batch_id,
        deployment=deployment.name,
        generation=deployment.generation,
        plan_id=plan.id,
        node_id=node.node_id,
        timing=batch.timing,
        accepted=len(believed),
        rejected=len(batch.samples) - len(believed),
        received_at=now,
    )
    session.add(stored)
    session.flush()
    session.add_all(_row(stored.id, sample, plan, now) for sample in believed)
    sample_store.forget(session, stored)
    figures = [
        (sample.layer, head.head, head.rows, head.tiles, head.recovery)
        for sample in believed
        for head in sample.heads or []
    ]
    if figures:
        recovery_store.keep(session, stored, figures, window)
    kinds = frozenset((plan.devices[sample.device], plan.workload.phase) for sample in believed)
    return Intake(_receipt(stored, duplicate=False), kinds)


def _row(batch: int, sample: DeviceSample, plan: Plan, now: float) -> StoredSample:
    return StoredSample(
        batch=batch,
        layer=sample.layer,
        device=sample.device,
        seconds=sample.seconds,
        work=sample.work,
        device_type=plan.devices[sample.device],
        phase=plan.workload.phase,
        context_tokens=plan.workload.context_tokens,
        measured_at=now,
    )
