"""Measured seconds: by deployment generation for its view, by device type for the cost model."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, insert, select

from api.store.session import Session
from api.store.tables import StoredBatch, StoredRound
from profiles.cost.samples import Sample
from profiles.cost.work import FEATURES, Floats, Phase

NEWEST_ROUNDS = 100
"""As many as a deployment may ask for at once; measuring that goes on must not add up for ever."""
READ_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Timed:
    """What the newest timing measured of a generation: `seconds` [samples, 3] of layer, device and
    seconds."""

    timing: str
    seconds: Floats


def seen(session: Session, batch_ids: Sequence[str]) -> dict[str, StoredBatch]:
    """Batches by the ids that their nodes gave them, those of them that are stored."""
    found = session.scalars(select(StoredBatch).where(StoredBatch.batch_id.in_(batch_ids)))
    return {batch.batch_id: batch for batch in found}


def keep_batches(session: Session, rows: Sequence[Mapping[str, Any]]) -> Sequence[int]:
    """Store batches, each by its columns; returns their numbers."""
    numbered = insert(StoredBatch).returning(StoredBatch.id, sort_by_parameter_order=True)
    return session.scalars(numbered, rows).all()


def keep_rounds(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store what batches measured, by columns of `StoredRound`."""
    if rows:
        session.execute(insert(StoredRound), rows)


def newest_of_all(session: Session) -> int:
    """The number of the newest batch with samples, 0 where there is none."""
    return session.scalar(select(func.max(StoredRound.batch))) or 0


def since(session: Session, batch: int) -> list[tuple[int, str, tuple[str, Phase]]]:
    """Batches with samples after a number: their deployments, device types and phases."""
    table = StoredRound
    rows = session.execute(
        select(table.batch, table.deployment, table.device_type, table.phase).where(
            table.batch > batch
        )
    )
    return [(number, name, (kind, cast("Phase", phase))) for number, name, kind, phase in rows]


def newest_round(session: Session, deployment: str, generation: int) -> int | None:
    """The number of a generation's newest round, another one with each batch."""
    sent = (StoredRound.deployment == deployment, StoredRound.generation == generation)
    return session.scalar(select(func.max(StoredRound.id)).where(*sent))


def of_generation(session: Session, deployment: str, generation: int) -> Timed | None:
    """Samples of a deployment's generation, the newest NEWEST_ROUNDS of every node.

    Devices timed alone and together are never mixed.
    """
    table = StoredRound
    sent = (table.deployment == deployment, table.generation == generation)
    timing = session.scalar(select(table.timing).where(*sent).order_by(table.id.desc()).limit(1))
    if timing is None:
        return None
    # A batch has one row of each of its node's device types.
    age = func.row_number().over(
        partition_by=(table.node_id, table.device_type), order_by=table.id.desc()
    )
    numbered = (
        select(table.layers, table.devices, table.seconds, age.label("age"))
        .where(*sent, table.timing == timing)
        .subquery()
    )
    columns = numbered.c.layers, numbered.c.devices, numbered.c.seconds
    rows = session.execute(select(*columns).where(numbered.c.age <= NEWEST_ROUNDS)).all()
    layers, devices, seconds = (b"".join(column) for column in zip(*rows, strict=True))
    return Timed(timing, np.column_stack([places(layers), places(devices), floats(seconds)]))


def newest(session: Session, device: str, phase: Phase, window: int) -> list[Sample]:
    """The `window` most recent samples of a device type in a phase, newest first, of one timing.

    A sample's age counts rounds: the batches since, shared out over the nodes that sent them.
    Those whose work was counted in features that are no more are left out.
    """
    rows = _newest_rounds(session, device, phase, window)
    rows = [row for row in rows if row.features and row.timing == rows[0].timing]
    nodes = len({row.node_id for row in rows})
    found = [
        Sample(counts, float(taken_s), rank // nodes, row.context_tokens)
        for rank, row in enumerate(rows)
        for counts, taken_s in zip(work_of(row)[::-1], floats(row.seconds)[::-1], strict=True)
    ]
    return found[:window]


def _newest_rounds(session: Session, device: str, phase: Phase, window: int) -> list[StoredRound]:
    """As many of the newest as have `window` samples together."""
    of_kind = (StoredRound.device_type == device, StoredRound.phase == phase)
    found: list[StoredRound] = []
    while sum(row.samples for row in found) < window:
        older = (StoredRound.id < found[-1].id,) if found else ()
        rows = session.scalars(
            select(StoredRound)
            .where(*of_kind, *older)
            .order_by(StoredRound.id.desc())
            .limit(READ_AT_ONCE)
        ).all()
        found += rows
        if len(rows) < READ_AT_ONCE:
            break
    return found


def work_of(row: StoredRound) -> Floats:
    """A row's counts in the features of now, [samples, FEATURES]."""
    counted = floats(zlib.decompress(row.work)).reshape(row.samples, len(row.features))
    work = np.zeros((row.samples, len(FEATURES)))
    for column, name in enumerate(row.features):
        if name in FEATURES:
            work[:, FEATURES.index(name)] = counted[:, column]
    return work


def packed_places(values: NDArray[np.integer]) -> bytes:
    """Layers or devices as they are stored."""
    return values.astype("<i4").tobytes()


def packed_floats(values: Floats) -> bytes:
    """Seconds, or work before it is compressed, as they are stored."""
    return values.astype("<f8").tobytes()


def places(stored: bytes) -> NDArray[np.int32]:
    """The reverse of `packed_places`."""
    return np.frombuffer(stored, "<i4")


def floats(stored: bytes) -> Floats:
    """The reverse of `packed_floats`."""
    return np.frombuffer(stored, "<f8")


def packed_work(work: Floats) -> bytes:
    """Work [samples, FEATURES] as it is stored."""
    return zlib.compress(packed_floats(work), 1)
