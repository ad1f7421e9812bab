"""Nodes, registered once and kept; which deployment each serves."""

from collections.abc import Sequence

from sqlalchemy import select

from api.store.database import Session
from api.store.tables import StoredNode


def find(session: Session, node_id: str) -> StoredNode | None:
    """A node, locked until the transaction ends, or None."""
    return session.get(StoredNode, node_id, with_for_update=True)


def every(session: Session) -> Sequence[StoredNode]:
    """All nodes, by name."""
    return session.scalars(select(StoredNode).order_by(StoredNode.node_id)).all()


def serving(session: Session, deployment: str) -> Sequence[StoredNode]:
    """The nodes that serve a deployment."""
    return session.scalars(select(StoredNode).where(StoredNode.deployment == deployment)).all()
