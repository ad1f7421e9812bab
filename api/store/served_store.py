"""What engines report of their steps: by generation for its view, by deployment for its traffic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, insert, select

from api.store import sample_store
from api.store.session import Session
from api.store.tables import StoredRound, StoredSteps
from profiles.cost.work import Floats, Phase

NEWEST_BATCHES = 16
"""Of every node, that an engine's generation is judged by."""

Ints = NDArray[np.int64]


class Step(NamedTuple):
    """A part of an engine's step that is all prompts (`prefill`) or all decodes."""

    number: int
    prefill: bool
    sequences: int
    new_tokens: int
    context_tokens: int
    mean_tokens: float


@dataclass(frozen=True, eq=False)
class Reported:
    """A batch's steps, with the run and the node that they are of."""

    batch: int
    node: str
    run: str
    steps: list[Step]


@dataclass(frozen=True, eq=False)
class Samples:
    """What a batch measured on devices of one type in one phase: [samples], work [samples,
    FEATURES]; `steps` are places in the batch's."""

    batch: int
    device_type: str
    phase: Phase
    layers: Ints
    devices: Ints
    seconds: Floats
    work: Floats
    steps: Ints


def keep(session: Session, rows: Sequence[tuple[Mapping[str, Any], Reported]]) -> None:
    """Store the steps of batches, each with the columns of its `StoredBatch`."""
    if rows:
        session.execute(
            insert(StoredSteps),
            [
                {
                    **{key: of[key] for key in ("deployment", "generation", "node_id")},
                    "batch": told.batch,
                    "run": told.run,
                    "figures": [list(step) for step in told.steps],
                }
                for of, told in rows
            ],
        )


def of_generation(session: Session, deployment: str, generation: int) -> list[Reported]:
    """The newest batches of every node, the oldest first; none where no engine reported."""
    table = StoredSteps
    of = table.deployment == deployment, table.generation == generation
    age = func.row_number().over(partition_by=table.node_id, order_by=table.batch.desc())
    numbered = select(table.batch, age.label("age")).where(*of).subquery()
    newest = select(numbered.c.batch).where(numbered.c.age <= NEWEST_BATCHES)
    rows = session.scalars(select(table).where(table.batch.in_(newest)).order_by(table.batch))
    return [
        Reported(row.batch, row.node_id, row.run, [Step(*figures) for figures in row.figures])
        for row in rows
    ]


def samples(session: Session, batches: Sequence[int]) -> list[Samples]:
    """What these batches measured."""
    table = StoredRound
    rows = session.scalars(
        select(table).where(table.batch.in_(batches), table.steps.is_not(None)).order_by(table.id)
    )
    return [
        Samples(
            row.batch,
            row.device_type,
            cast("Phase", row.phase),
            sample_store.places(row.layers).astype(np.int64),
            sample_store.places(row.devices).astype(np.int64),
            sample_store.floats(row.seconds),
            sample_store.work_of(row),
            sample_store.places(row.steps or b"").astype(np.int64),
        )
        for row in rows
    ]
