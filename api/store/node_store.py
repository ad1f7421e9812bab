"""Nodes, registered once and kept; which deployment each serves."""

from collections.abc import Collection, Sequence

from sqlalchemy import select

from api.store.session import Session
from api.store.tables import StoredDeployment, StoredNode

_IN_ORDER = select(StoredNode).order_by(StoredNode.node_id)


def find_to_change(session: Session, node_id: str) -> StoredNode | None:
    """A node, locked until the transaction ends, or None."""
    return session.get(StoredNode, node_id, with_for_update=True)


def named(
    session: Session, node_ids: Collection[str], *, to_change: bool = False
) -> dict[str, StoredNode]:
    """Nodes by name; those to change are locked until the transaction ends."""
    nodes = _IN_ORDER.where(StoredNode.node_id.in_(node_ids))
    found = session.scalars(nodes.with_for_update() if to_change else nodes)
    return {node.node_id: node for node in found}


def every(session: Session) -> Sequence[StoredNode]:
    """All nodes, by name."""
    return session.scalars(_IN_ORDER).all()


def page(session: Session, limit: int, offset: int) -> tuple[Sequence[StoredNode], int]:
    """Some of them, and how many there are."""
    return session.page(_IN_ORDER, limit, offset)


def serving(session: Session, deployment: str) -> Sequence[StoredNode]:
    """The nodes that serve a deployment."""
    return session.scalars(select(StoredNode).where(StoredNode.deployment == deployment)).all()


def assigned(session: Session) -> dict[str, tuple[str, int] | None]:
    """Deployment and generation that each node is to run, None where it serves none."""
    rows = session.execute(
        select(StoredNode.node_id, StoredDeployment.name, StoredDeployment.generation).join(
            StoredDeployment, StoredDeployment.name == StoredNode.deployment, isouter=True
        )
    )
    return {node: None if name is None else (name, generation) for node, name, generation in rows}
