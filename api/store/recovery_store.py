"""What executors report of heads' recovery: a window of the live generation's newest rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, delete, or_, select

from api.store.session import Session
from api.store.tables import StoredRecovery

Figures = tuple[int, int, int, int, float]
"""layer, head, rows, tiles, recovery"""


def keep(
    session: Session, batch: int, of: Mapping[str, Any], figures: Sequence[Figures], window: int
) -> None:
    """Store the figures of a batch of this number and these columns of `StoredBatch`.

    Older than a node's newest `window` batches are forgotten.
    """
    deployment, generation, node_id = of["deployment"], of["generation"], of["node_id"]
    session.add(
        StoredRecovery(
            batch=batch,
            deployment=deployment,
            generation=generation,
            node_id=node_id,
            figures=[list(row) for row in figures],
        )
    )
    session.flush()
    table = StoredRecovery
    newest = session.scalars(
        select(table.batch)
        .where(
            table.deployment == deployment,
            table.generation == generation,
            table.node_id == node_id,
        )
        .order_by(table.batch.desc())
        .limit(window)
    ).all()
    too_old = and_(table.node_id == node_id, table.batch < newest[-1])
    session.execute(
        delete(table).where(
            table.deployment == deployment,
            or_(table.generation != generation, too_old),
        )
    )


def of_generation(session: Session, deployment: str, generation: int) -> Sequence[StoredRecovery]:
    """The window's batches, the oldest first."""
    return session.scalars(
        select(StoredRecovery)
        .where(StoredRecovery.deployment == deployment, StoredRecovery.generation == generation)
        .order_by(StoredRecovery.batch)
    ).all()
