"""Takes in a batch of measurements: once, whole or not at all, and only for what is live."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api import deploying
from api.errors import Problem, bad_field, not_found
from api.head_reports import COUNTS_MAY_DIFFER, check_heads, heads_believable
from api.schemas import MeasurementBatch, SampleBody
from api.store import plans, recoveries, samples
from api.store.database import Database
from api.store.tables import Batch, Node, StoredSample
from profiles.cost.roofline import fastest_possible_s
from profiles.cost.work import FEATURES, Floats, Phase
from profiles.device import device_profile
from solver.planning.predict import shard_work
from solver.plans import Plan


@dataclass(frozen=True)
class Receipt:
    """What became of a batch; `kinds` are those of its accepted samples."""

    duplicate: bool
    accepted: int
    rejected: int
    kinds: frozenset[tuple[str, Phase]] = frozenset()


def take_in(database: Database, batch: MeasurementBatch, window: int, now: float) -> Receipt:
    """Store a batch unless its id was seen before, however many post it at once.

    Of heads' recovery a node's newest `window` batches are kept.

    Raises Problem: 404 unknown deployment or plan, 409 superseded generation, 422 samples of
    devices or layers that the node does not run. Nothing is stored then.
    """
    try:
        with database.write() as session:
            return _seen(session, batch.batch_id) or _store(session, batch, window, now)
    except IntegrityError:
        with database.read() as session:
            seen = _seen(session, batch.batch_id)
        if seen is None:
            raise
        return seen


def _seen(session: Session, batch_id: str) -> Receipt | None:
    stored = session.scalars(select(Batch).where(Batch.batch_id == batch_id)).one_or_none()
    return Receipt(True, stored.accepted, stored.rejected) if stored else None


def _store(session: Session, batch: MeasurementBatch, window: int, now: float) -> Receipt:
    plan = plans.find(session, batch.plan_id)
    if plan is None:
        raise not_found("plan", batch.plan_id)
    deployment = deploying.find(session, batch.deployment)
    if batch.generation != deployment.generation:
        raise Problem(
            409,
            f"generation {batch.generation} of {batch.deployment!r} is not live; "
            f"it is on generation {deployment.generation}",
        )
    node = session.get(Node, batch.node_id)
    if node is None or node.deployment != deployment.name:
        raise Problem(409, f"node {batch.node_id!r} does not serve {batch.deployment!r}")
    if batch.plan_id != deployment.plan_id:
        raise bad_field("plan_id", f"generation {batch.generation} runs plan {deployment.plan_id}")
    _check_places(batch.samples, node, deployment.layers)
    for i, sample in enumerate(batch.samples):
        check_heads(sample, plan, f"samples.{i}.heads")
    work = np.array([_work(sample, i) for i, sample in enumerate(batch.samples)])
    expected = {layer: shard_work(plan, layer) for layer in {s.layer for s in batch.samples}}
    believed = [
        _believable(
            plan.devices[sample.device], sample.seconds, row, expected[sample.layer][sample.device]
        )
        and heads_believable(sample, plan)
        for sample, row in zip(batch.samples, work, strict=True)
    ]
    stored = Batch(
        batch_id=batch.batch_id,
        deployment=deployment.name,
        generation=deployment.generation,
        plan_id=plan.id,
        node_id=node.node_id,
        timing=batch.timing,
        accepted=sum(believed),
        rejected=len(believed) - sum(believed),
        received_at=now,
    )
    session.add(stored)
    session.flush()
    session.add_all(
        _sample(stored.id, sample, row.tolist(), plan, now)
        for sample, row, ok in zip(batch.samples, work, believed, strict=True)
        if ok
    )
    samples.forget(session, stored)
    figures = [
        (sample.layer, head.head, head.rows, head.tiles, head.recovery)
        for sample, ok in zip(batch.samples, believed, strict=True)
        for head in (sample.heads or []) * ok
    ]
    if figures:
        recoveries.keep(session, stored, figures, window)
    kinds = frozenset(
        (plan.devices[sample.device], plan.workload.phase)
        for sample, ok in zip(batch.samples, believed, strict=True)
        if ok
    )
    return Receipt(False, stored.accepted, stored.rejected, kinds)


def _check_places(samples: list[SampleBody], node: Node, layers: list[int]) -> None:
    for i, sample in enumerate(samples):
        if sample.device not in node.part:
            raise bad_field(
                f"samples.{i}.device",
                f"node {node.node_id!r} plays devices {node.part}, not {sample.device}",
            )
        if sample.layer not in layers:
            raise bad_field(f"samples.{i}.layer", f"layer {sample.layer} is not one of {layers}")
    (place, times), *_ = Counter((s.layer, s.device) for s in samples).most_common(1)
    if times > 1:
        raise bad_field(
            "samples",
            f"layer {place[0]} of device {place[1]} comes {times} times; one batch is one round",
        )


def _work(sample: SampleBody, index: int) -> list[float]:
    unknown = sorted(set(sample.work) - set(FEATURES))
    if unknown:
        raise bad_field(
            f"samples.{index}.work",
            f"unknown feature {unknown[0]!r}; known are {', '.join(FEATURES)}",
        )
    return [sample.work.get(feature, 0.0) for feature in FEATURES]


def _believable(device: str, seconds: float, work: Floats, planned: Floats) -> bool:
    """Whether it is the work the plan gave the device, and a chip of its type could be so fast."""
    near = (work <= COUNTS_MAY_DIFFER * planned) & (work * COUNTS_MAY_DIFFER >= planned)
    return bool(near.all() and seconds >= fastest_possible_s(device_profile(device), work))


def _sample(
    batch: int, sample: SampleBody, work: list[float], plan: Plan, now: float
) -> StoredSample:
    return StoredSample(
        batch=batch,
        layer=sample.layer,
        device=sample.device,
        seconds=sample.seconds,
        work=work,
        device_type=plan.devices[sample.device],
        phase=plan.workload.phase,
        context_tokens=plan.workload.context_tokens,
        measured_at=now,
    )
