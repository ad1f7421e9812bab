"""Plans by content id, what they were made for, and the requests that they answer."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import select

from api.store import profile_store
from api.store.session import Session
from api.store.tables import PlanOrigin, StoredAnswer, StoredPlan
from profiles.model import ModelProfile
from solver.plans import Plan
from solver.request import PlanRequest

NEWEST_LOADED = 64


@lru_cache(maxsize=64)
def _parse(body: str) -> Plan:
    return Plan.parse(body, "stored plan")


def find_body(session: Session, plan_id: str) -> str | None:
    """A plan's JSON, or None."""
    return session.scalar(select(StoredPlan.body).where(StoredPlan.id == plan_id))


def find(session: Session, plan_id: str) -> Plan | None:
    """A plan, or None."""
    body = find_body(session, plan_id)
    return _parse(body) if body else None


def load(session: Session, plan_id: str) -> Plan:
    """A plan that another row refers to; one of the newest loaded without a look."""
    loaded = session.plans
    found = loaded.get(plan_id)
    if found is None:
        body = session.scalars(select(StoredPlan.body).where(StoredPlan.id == plan_id)).one()
        found = loaded[plan_id] = _parse(body)
        for oldest in list(loaded)[:-NEWEST_LOADED]:
            loaded.pop(oldest, None)
    return found


def find_answer(session: Session, request_digest: str) -> str | None:
    """The id of the plan that an equal request got, or None."""
    return session.scalar(select(StoredAnswer.plan_id).where(StoredAnswer.digest == request_digest))


def find_summary(session: Session, plan_id: str) -> dict[str, Any] | None:
    """A plan in short, or None."""
    return session.scalar(select(StoredPlan.summary).where(StoredPlan.id == plan_id))


def summaries(session: Session, limit: int, offset: int) -> tuple[Sequence[dict[str, Any]], int]:
    """Plans in short, newest first, and how many there are."""
    newest = select(StoredPlan.summary).order_by(StoredPlan.created_at.desc(), StoredPlan.id)
    return session.page(newest, limit, offset)


def keep(
    session: Session,
    body: str,
    summary: dict[str, Any],
    request: PlanRequest,
    answers: str | None,
    now: float,
) -> str:
    """Store a plan with what it was made for: a request whose profiles are all inline.

    `answers` is the digest of the requests that are to get it from now on. Returns the plan's JSON
    as it is stored: that of an equal one kept before stays, its timings with it.
    """
    assert isinstance(request.profile, ModelProfile)
    profile_store.keep_content(session, request.profile)
    plan_id = str(summary["id"])
    stored = find_body(session, plan_id)
    if stored is None:
        session.add(StoredPlan(id=plan_id, body=body, summary=summary, created_at=now))
        session.flush()
    session.put(
        PlanOrigin(
            plan_id=plan_id,
            profile_digest=request.profile.digest,
            options=options_of(session, request),
            created_at=now,
        )
    )
    if answers is not None:
        session.put(StoredAnswer(digest=answers, plan_id=plan_id, created_at=now))
    return stored or body


def request_of(session: Session, plan_id: str) -> PlanRequest:
    """The newest request that a plan was made for, its profiles inline as they were then."""
    origin = session.get_one(PlanOrigin, plan_id)
    return request_from(session, origin.profile_digest, origin.options)


def request_from(session: Session, profile_digest: str, options: dict[str, Any]) -> PlanRequest:
    """A request by its profile's digest and its `options_of`."""
    options = dict(options)
    if options.get("workloads"):
        options["workloads"] = [_with_profile(session, step) for step in options["workloads"]]
    return PlanRequest(profile=profile_store.load(session, profile_digest), **options)


def options_of(session: Session, request: PlanRequest) -> dict[str, Any]:
    """Everything but the profiles, and these by their digests."""
    without: Any = {"profile": True, "fresh": True, "workloads": {"__all__": {"profile"}}}
    options = request.model_dump(mode="json", exclude=without)
    for stored, step in zip(options["workloads"] or [], request.workloads or [], strict=True):
        if isinstance(step.profile, ModelProfile):
            profile_store.keep_content(session, step.profile)
            stored["profile"] = step.profile.digest
    return options


def _with_profile(session: Session, step: dict[str, Any]) -> dict[str, Any]:
    if "profile" not in step:
        return step
    return {**step, "profile": profile_store.load(session, step["profile"])}
