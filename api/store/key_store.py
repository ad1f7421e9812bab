"""Keys: what is kept of each is the digest of its secret, and what it may do."""

import hashlib
from collections.abc import Sequence

from sqlalchemy import select

from api.store.session import Session
from api.store.tables import StoredKey


def digest_of(secret: str) -> str:
    """What is kept of a secret; it is too long to be guessed, so that no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def every(session: Session) -> Sequence[StoredKey]:
    """All keys, by name."""
    return session.scalars(select(StoredKey).order_by(StoredKey.name)).all()


def find(session: Session, name: str) -> StoredKey | None:
    """A key by its name, locked until the transaction ends, or None."""
    return session.get(StoredKey, name, with_for_update=True)
