"""Model profiles by name: the catalogue's, and those that clients stored."""

from functools import lru_cache
from typing import Any

from sqlalchemy import select

from api.store.session import Session
from api.store.tables import ProfileContent, StoredProfile
from profiles.catalogue import catalogue_names, catalogue_profile
from profiles.model import ModelProfile


@lru_cache(maxsize=16)
def _parse(body: str) -> ModelProfile:
    return ModelProfile.parse(body, "stored profile")


def summary(profile: ModelProfile) -> dict[str, Any]:
    """What a list of profiles shows of one."""
    return {
        "name": profile.name,
        "layers": profile.architecture.layers,
        "query_heads": profile.architecture.query_heads,
        "kv_heads": profile.architecture.kv_heads,
        "form": profile.heads.form,
        "source": profile.source,
        "synthetic": profile.synthetic,
        "digest": profile.digest,
    }


def summaries(session: Session) -> list[dict[str, Any]]:
    """All profiles in short, by name."""
    stored = session.scalars(select(StoredProfile.summary)).all()
    shipped = [summary(catalogue_profile(name)) for name in catalogue_names()]
    return sorted([*shipped, *stored], key=lambda entry: str(entry["name"]))


def find(session: Session, name: str) -> ModelProfile | None:
    """The profile of that name, or None."""
    if name in catalogue_names():
        return catalogue_profile(name)
    stored = session.get(StoredProfile, name)
    return load(session, stored.digest) if stored else None


def load(session: Session, digest: str) -> ModelProfile:
    """A stored content."""
    body = session.scalars(select(ProfileContent.body).where(ProfileContent.digest == digest)).one()
    return _parse(body)


def keep_content(session: Session, profile: ModelProfile) -> None:
    """Store a profile's content under its digest."""
    known = select(ProfileContent.digest).where(ProfileContent.digest == profile.digest)
    # Half a megabyte of text need not be read to see that it is there.
    if session.scalar(known) is None:
        session.add(ProfileContent(digest=profile.digest, body=profile.text))
        session.flush()


def keep(session: Session, profile: ModelProfile, now: float) -> None:
    """Store a profile under its name, in place of what had it."""
    keep_content(session, profile)
    session.merge(
        StoredProfile(
            name=profile.name, digest=profile.digest, summary=summary(profile), stored_at=now
        )
    )


def forget(session: Session, name: str) -> bool:
    """Take a name away, not the content; returns whether there was such a name."""
    stored = session.get(StoredProfile, name)
    if stored is not None:
        session.delete(stored)
    return stored is not None
