"""Solves that were promised, and the idempotency keys that requests came with."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select

from api.store import plan_store, profile_store
from api.store.session import Session
from api.store.tables import IdempotencyKey, StoredSolve
from profiles.model import ModelProfile
from solver.request import PlanRequest

KEYS_KEPT_S = 24 * 3600.0


@dataclass(frozen=True)
class Promised:
    """A solve to be asked again under its old name."""

    digest: str
    request: PlanRequest
    client: str
    urgency: int


def promise(
    session: Session, digest: str, request: PlanRequest, client: str, urgency: int, now: float
) -> None:
    """Remember a solve, of a request whose profiles are all inline, until it has ended."""
    assert isinstance(request.profile, ModelProfile)
    profile_store.keep_content(session, request.profile)
    session.merge(
        StoredSolve(
            digest=digest,
            profile_digest=request.profile.digest,
            options=plan_store.options_of(session, request),
            client=client,
            urgency=urgency,
            asked_at=now,
        )
    )


def forget(session: Session, digest: str) -> None:
    """A solve has ended."""
    session.execute(delete(StoredSolve).where(StoredSolve.digest == digest))


def promised(session: Session) -> Sequence[Promised]:
    """What was promised and has not ended, the oldest first."""
    rows = session.scalars(select(StoredSolve).order_by(StoredSolve.asked_at)).all()
    return [
        Promised(
            row.digest,
            plan_store.request_from(session, row.profile_digest, row.options),
            row.client,
            row.urgency,
        )
        for row in rows
    ]


def claim(
    session: Session, client: str, key: str, request: str, digest: str, now: float
) -> tuple[str, str] | None:
    """Use an idempotency key for a request, by its SHA-256, and the solve that is to answer it.

    Returns the request and solve that it was used for before, or None where this is the first time.
    """
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - KEYS_KEPT_S))
    used = session.get(IdempotencyKey, (client, key))
    if used is not None:
        return used.request, used.digest
    session.add(
        IdempotencyKey(client=client, key=key, request=request, digest=digest, created_at=now)
    )
    return None
