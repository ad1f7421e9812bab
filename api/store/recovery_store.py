"""What executors report of heads' recovery: a window of the live generation's newest rounds."""

from collections.abc import Sequence

from sqlalchemy import and_, delete, or_, select

from api.store.database import Session
from api.store.tables import StoredBatch, StoredRecovery

Figures = tuple[int, int, int, int, float]
"""layer, head, rows, tiles, recovery"""


def keep(session: Session, batch: StoredBatch, figures: Sequence[Figures], window: int) -> None:
    """Store a batch's figures; older than a node's newest `window` batches are forgotten."""
    session.add(
        StoredRecovery(
            batch=batch.id,
            deployment=batch.deployment,
            generation=batch.generation,
            node_id=batch.node_id,
            figures=[list(row) for row in figures],
        )
    )
    session.flush()
    table = StoredRecovery
    newest = session.scalars(
        select(table.batch)
        .where(
            table.deployment == batch.deployment,
            table.generation == batch.generation,
            table.node_id == batch.node_id,
        )
        .order_by(table.batch.desc())
        .limit(window)
    ).all()
    too_old = and_(table.node_id == batch.node_id, table.batch < newest[-1])
    session.execute(
        delete(table).where(
            table.deployment == batch.deployment,
            or_(table.generation != batch.generation, too_old),
        )
    )


def of_generation(session: Session, deployment: str, generation: int) -> Sequence[StoredRecovery]:
    """The window's batches, the oldest first."""
    return session.scalars(
        select(StoredRecovery)
        .where(StoredRecovery.deployment == deployment, StoredRecovery.generation == generation)
        .order_by(StoredRecovery.batch)
    ).all()
