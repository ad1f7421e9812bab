"""Deployments and their history."""

from collections.abc import Sequence

from sqlalchemy import select

from api.store.database import Session
from api.store.tables import StoredDeployment, StoredGeneration


def find(session: Session, name: str) -> StoredDeployment | None:
    """A deployment, locked until the transaction ends, or None."""
    return session.get(StoredDeployment, name, with_for_update=True)


def every(session: Session) -> Sequence[StoredDeployment]:
    """All deployments, by name."""
    return session.scalars(select(StoredDeployment).order_by(StoredDeployment.name)).all()


def names_to_refine(session: Session) -> Sequence[str]:
    """The names of those that the refine loop may move."""
    return session.scalars(select(StoredDeployment.name).where(StoredDeployment.refine)).all()


def history(session: Session, name: str) -> Sequence[StoredGeneration]:
    """A deployment's generations, the first one first."""
    return session.scalars(
        select(StoredGeneration)
        .where(StoredGeneration.deployment == name)
        .order_by(StoredGeneration.generation)
    ).all()
