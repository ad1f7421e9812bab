"""Deployments and their history."""

from collections.abc import Collection, Sequence

from sqlalchemy import select

from api.store.session import Session
from api.store.tables import StoredDeployment, StoredGeneration

_IN_ORDER = select(StoredDeployment).order_by(StoredDeployment.name)


def find(session: Session, name: str, *, to_change: bool = False) -> StoredDeployment | None:
    """A deployment, or None; one to change is locked until the transaction ends."""
    return session.get(StoredDeployment, name, with_for_update=to_change or None)


def live(session: Session, names: Collection[str]) -> dict[str, StoredDeployment]:
    """Deployments by name, whose generations stay live until the transaction ends."""
    found = session.scalars(
        select(StoredDeployment)
        .where(StoredDeployment.name.in_(names))
        .order_by(StoredDeployment.name)
        .with_for_update(read=True)
    )
    return {deployment.name: deployment for deployment in found}


def every(session: Session) -> Sequence[StoredDeployment]:
    """All deployments, by name."""
    return session.scalars(_IN_ORDER).all()


def page(session: Session, limit: int, offset: int) -> tuple[Sequence[StoredDeployment], int]:
    """Some of them, and how many there are."""
    return session.page(_IN_ORDER, limit, offset)


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


def that_ran(session: Session, plan_id: str) -> Sequence[StoredGeneration]:
    """The generations that ran a plan, by deployment."""
    return session.scalars(
        select(StoredGeneration)
        .where(StoredGeneration.plan_id == plan_id)
        .order_by(StoredGeneration.deployment, StoredGeneration.generation)
    ).all()
