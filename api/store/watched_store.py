"""What an engine's ranks watched of their heads: of every layer a window of each node's newest
batches that looked at it, for a step looks at one layer alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, insert, select, tuple_

from api.store import sample_store
from api.store.session import Session
from api.store.tables import StoredWatched
from profiles.cost.work import Floats

COLUMNS = 5
"""prefill (1, of a decode 0), head, first, last, rows"""


@dataclass(frozen=True, eq=False)
class LayerWatched:
    """What one batch of a node watched of a layer: rows, int [reports, COLUMNS], and their recovery
    [reports]."""

    batch: int
    node: str
    layer: int
    rows: NDArray[np.integer]
    recovery: Floats


def keep(
    session: Session, of: Mapping[str, Any], watched: Sequence[LayerWatched], window: int
) -> None:
    """Store what a batch of these columns of `StoredBatch` watched of its layers.

    Of a layer a node's batches older than the newest `window` are forgotten.
    """
    sent = {key: of[key] for key in ("deployment", "generation", "node_id")}
    session.execute(
        insert(StoredWatched),
        [
            {
                **sent,
                "batch": each.batch,
                "layer": each.layer,
                "rows": sample_store.packed_places(each.rows),
                "recovery": sample_store.packed_floats(each.recovery),
            }
            for each in watched
        ],
    )
    table = StoredWatched
    of_node = table.deployment == sent["deployment"], table.node_id == sent["node_id"]
    age = func.row_number().over(partition_by=table.layer, order_by=table.batch.desc())
    ranked = select(table.batch, table.layer, age.label("age")).where(
        *of_node, table.generation == sent["generation"]
    )
    numbered = ranked.subquery()
    too_old = select(numbered.c.batch, numbered.c.layer).where(numbered.c.age > window)
    key = tuple_(table.batch, table.layer)
    session.execute(delete(table).where(*of_node, key.in_(too_old)))
    session.execute(
        delete(table).where(
            table.deployment == sent["deployment"], table.generation != sent["generation"]
        )
    )


def of_generation(session: Session, deployment: str, generation: int) -> list[LayerWatched]:
    """The window of every node and layer, the oldest first."""
    table = StoredWatched
    kept = session.scalars(
        select(table)
        .where(table.deployment == deployment, table.generation == generation)
        .order_by(table.batch, table.layer)
    )
    return [
        LayerWatched(
            row.batch,
            row.node_id,
            row.layer,
            sample_store.places(row.rows).reshape(-1, COLUMNS),
            sample_store.floats(row.recovery),
        )
        for row in kept
    ]
