"""Plans by content id, and the requests that asked for them."""

from collections import Counter
from functools import lru_cache
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.store import profiles
from api.store.tables import StoredPlan, StoredRequest
from profiles.model import ModelProfile
from solver.plan import Plan
from solver.request import PlanRequest


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
    """A plan that another row refers to."""
    body = session.scalars(select(StoredPlan.body).where(StoredPlan.id == plan_id)).one()
    return _parse(body)


def find_answer(session: Session, request_digest: str) -> str | None:
    """The JSON of the plan that an equal request got, or None."""
    answered = select(StoredPlan.body).join(StoredRequest, StoredRequest.plan_id == StoredPlan.id)
    return session.scalar(answered.where(StoredRequest.digest == request_digest))


def summary(plan: Plan) -> dict[str, Any]:
    """What a list of plans shows of one."""
    shown = {"id", "status", "solver", "makespan_s", "lower_bound_s", "gap", "bubble_ratio"}
    return {
        **plan.model_dump(mode="json", include=shown),
        "profile": plan.profile.name,
        "devices": dict(Counter(plan.devices)),
        "context_tokens": plan.workload.context_tokens,
        "phase": plan.workload.phase,
        "deployment": plan.workload.deployment,
        "created_at": plan.created_at,
    }


def summaries(session: Session, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Plans in short, newest first, and how many there are."""
    newest = select(StoredPlan.summary).order_by(StoredPlan.created_at.desc(), StoredPlan.id)
    page = session.scalars(newest.limit(limit).offset(offset)).all()
    total = session.scalar(select(func.count()).select_from(StoredPlan)) or 0
    return list(page), total


def keep(
    session: Session,
    plan: Plan,
    request: PlanRequest,
    profile: ModelProfile,
    request_digest: str,
    now: float,
) -> str:
    """Store a plan as the answer to its request; returns the stored JSON."""
    profiles.keep_content(session, profile)
    body = find_body(session, plan.id)
    if body is None:
        body = plan.model_dump_json()
        session.add(StoredPlan(id=plan.id, body=body, summary=summary(plan), created_at=now))
        session.flush()
    session.merge(
        StoredRequest(
            digest=request_digest,
            plan_id=plan.id,
            profile_digest=profile.digest,
            options=request.model_dump(mode="json", exclude={"profile", "fresh"}),
            created_at=now,
        )
    )
    return body


def request_of(session: Session, plan_id: str) -> PlanRequest:
    """The newest request that a plan answered, its profile inline as it was then."""
    asked = (
        select(StoredRequest)
        .where(StoredRequest.plan_id == plan_id)
        .order_by(StoredRequest.created_at.desc())
        .limit(1)
    )
    stored = session.scalars(asked).one()
    profile = profiles.load(session, stored.profile_digest)
    return PlanRequest(profile=profile, **stored.options)
