"""Drift of a live deployment: judged from what is stored, and a profile that takes it in."""

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.drift import Drift, DriftPolicy, Floats, Mask, gather, judge
from api.promise import promise
from api.refine import Recoveries
from api.store import plans, profiles, recoveries
from api.store.tables import Deployment, Node
from profiles.correction import corrected
from profiles.model import ModelProfile
from solver.plans import Plan


def verdict(deployment: Deployment) -> Drift | None:
    """The newest verdict on the live generation; None before any recovery was reported."""
    return None if deployment.drift is None else Drift.from_json(deployment.drift)


def look(session: Session, deployment: Deployment, policy: DriftPolicy, now: float) -> Drift | None:
    """Judge the live generation's window and keep the verdict; None with no recovery reported."""
    found = _judged(session, deployment, policy, now)
    deployment.drift = None if found is None else found.to_json()
    return found


def _judged(
    session: Session, deployment: Deployment, policy: DriftPolicy, now: float
) -> Drift | None:
    reports = recoveries.of_generation(session, deployment.name, deployment.generation)
    if not reports:
        return None
    plan = plans.load(session, deployment.plan_id)
    profile = profiles.load(session, plan.profile.digest)
    promised = promise(profile, plan)
    if promised is None:
        return Drift(reason=f"profile {profile.name!r} ({profile.heads.form}) promises no recovery")
    observed = gather(reports, _holders(session, deployment, plan), *promised.recovery.shape)
    return judge(promised, observed, verdict(deployment), policy, now)


def _holders(session: Session, deployment: Deployment, plan: Plan) -> dict[str, Mask]:
    """Which heads, [layers, heads], each of the deployment's nodes computes any part of.

    A head with a part that no node serves, for one has left, is nobody's: the rest is no sample.
    """
    serving = session.scalars(select(Node).where(Node.deployment == deployment.name))
    parts = {node.node_id: set(node.part) for node in serving}
    served = set().union(*parts.values())
    devices = [
        [{entry.device for entry in entries} for entries in layer.heads] for layer in plan.layers
    ]
    return {
        name: np.array([[here <= served and not here.isdisjoint(p) for here in d] for d in devices])
        for name, p in parts.items()
    }


def corrected_profile(session: Session, deployment: Deployment, plan: Plan) -> ModelProfile:
    """The live plan's profile with its curves as the window saw them."""
    profile = profiles.load(session, plan.profile.digest)
    promised = promise(profile, plan)
    assert promised is not None  # else nothing drifted
    reports = recoveries.of_generation(session, deployment.name, deployment.generation)
    observed = gather(reports, _holders(session, deployment, plan), *promised.recovery.shape)
    rounds = int(observed.rounds.max(initial=0))
    seen_by = (
        f"generation {deployment.generation} of deployment {deployment.name} observed in "
        f"{rounds} rounds"
    )
    return corrected(profile, promised.recovery, observed.recovery, seen_by)


def recoveries_of(
    profile: ModelProfile, live: Plan, candidate: Plan, layers: list[int]
) -> Recoveries:
    """The least recovery of any head of both plans, by one profile's curves, in the layers run."""
    return Recoveries(_least(profile, live, layers), _least(profile, candidate, layers))


def _least(profile: ModelProfile, plan: Plan, layers: list[int]) -> float:
    promised = promise(profile, plan)
    assert promised is not None
    recovery: Floats = promised.recovery[np.array(layers)]
    return float(recovery.min())
