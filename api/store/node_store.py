"""Nodes, registered once and kept; which deployment each serves."""

from collections.abc import Collection, Sequence

from sqlalchemy import Select, select

from api.store.session import Session
from api.store.tables import StoredDeployment, StoredNode

_IN_ORDER = select(StoredNode).order_by(StoredNode.node_id)


def find_to_change(session: Session, node_id: str) -> StoredNode | None:
    """A node, locked until the transaction ends, or None."""
    return session.get(StoredNode, node_id, with_for_update=True)


def named(session: Session, node_ids: Collection[str]) -> dict[str, StoredNode]:
    """Nodes by name."""
    return _by_name(session, select(StoredNode), node_ids)


def named_to_change(session: Session, node_ids: Collection[str]) -> dict[str, StoredNode]:
    """Nodes by name, locked until the transaction ends."""
    return _by_name(session, select(StoredNode).with_for_update(), node_ids)


def _by_name(
    session: Session, nodes: Select[StoredNode], node_ids: Collection[str]
) -> dict[str, StoredNode]:
    named = nodes.where(StoredNode.node_id.in_(node_ids)).order_by(StoredNode.node_id)
    return {node.node_id: node for node in session.scalars(named)}


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
