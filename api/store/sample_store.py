"""Measured seconds: by deployment generation for its view, by device type for the cost model."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import delete, func, select

from api.store.database import Session
from api.store.tables import StoredBatch, StoredSample
from profiles.cost.samples import Sample
from profiles.cost.work import FEATURES, Phase

NEWEST_ROUNDS = 100
"""As many as a deployment may ask for at once; measuring that goes on must not add up for ever."""
FORGOTTEN_AT_ONCE = 10
"""Rounds: one comes and one goes, and what an older service left goes little by little."""


@dataclass(frozen=True)
class Round:
    """What the newest timing measured of a generation: (layer, device, seconds) rows."""

    timing: str
    seconds: list[tuple[int, int, float]]


def find_batch(session: Session, batch_id: str) -> StoredBatch | None:
    """A batch by the id that its node gave it, or None."""
    return session.scalars(
        select(StoredBatch).where(StoredBatch.batch_id == batch_id)
    ).one_or_none()


def of_generation(session: Session, deployment: str, generation: int) -> Round | None:
    """Samples of a deployment's generation, the newest NEWEST_ROUNDS of every node.

    Devices timed alone and together are never mixed.
    """
    sent = (StoredBatch.deployment == deployment, StoredBatch.generation == generation)
    newest = select(StoredBatch.timing).where(*sent).order_by(StoredBatch.id.desc()).limit(1)
    timing = session.scalar(newest)
    if timing is None:
        return None
    age = func.row_number().over(partition_by=StoredBatch.node_id, order_by=StoredBatch.id.desc())
    numbered = (
        select(StoredBatch.id, age.label("age"))
        .where(*sent, StoredBatch.timing == timing)
        .subquery()
    )
    rows = session.execute(
        select(StoredSample.layer, StoredSample.device, StoredSample.seconds)
        .join(numbered, numbered.c.id == StoredSample.batch)
        .where(numbered.c.age <= NEWEST_ROUNDS)
    )
    return Round(timing, [(layer, device, seconds) for layer, device, seconds in rows])


def forget(session: Session, batch: StoredBatch) -> None:
    """Drop samples of the rounds that were a node's newest NEWEST_ROUNDS before this one.

    No view shows them, and a refit weighs them at next to nothing (`forgetting` ** age).
    """
    old = session.scalars(
        select(StoredBatch.id)
        .where(
            StoredBatch.deployment == batch.deployment,
            StoredBatch.generation == batch.generation,
            StoredBatch.node_id == batch.node_id,
            StoredBatch.timing == batch.timing,
        )
        .order_by(StoredBatch.id.desc())
        .offset(NEWEST_ROUNDS)
        .limit(FORGOTTEN_AT_ONCE)
    ).all()
    if old:
        session.execute(delete(StoredSample).where(StoredSample.batch.in_(old)))


def newest(session: Session, device: str, phase: Phase, window: int) -> list[Sample]:
    """The `window` most recent samples of a device type in a phase, newest first, of one timing.

    A sample's age counts rounds: the batches since, shared out over the nodes that sent them.
    Those whose work was counted in features that are no more are left out.
    """
    of_kind = (StoredSample.device_type == device, StoredSample.phase == phase)
    recent = (
        select(
            StoredSample.work,
            StoredSample.seconds,
            StoredSample.context_tokens,
            StoredBatch.id,
            StoredBatch.node_id,
            StoredBatch.timing,
        )
        .join(StoredBatch, StoredBatch.id == StoredSample.batch)
        .where(*of_kind)
        .order_by(StoredSample.id.desc())
        .limit(window)
    )
    rows = session.execute(recent).all()
    rows = [row for row in rows if row.work and row.timing == rows[0].timing]
    nodes = len({row.node_id for row in rows})
    rank = {batch: i for i, batch in enumerate(dict.fromkeys(row.id for row in rows))}
    return [
        Sample(
            np.array([row.work.get(name, 0.0) for name in FEATURES]),
            row.seconds,
            rank[row.id] // nodes,
            row.context_tokens,
        )
        for row in rows
    ]
