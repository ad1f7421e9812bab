"""Watches a live deployment for drift: judged from what is stored, the verdict kept with it."""

import numpy as np

from api.loop.drift import DriftPolicy, DriftVerdict, Mask, RecoveryReport, gather, judge
from api.loop.promise import promise
from api.store import node_store, plan_store, profile_store, recovery_store
from api.store.session import Session
from api.store.tables import StoredDeployment
from profiles.correction import corrected
from profiles.model import ModelProfile
from solver.plans import Plan


def verdict(deployment: StoredDeployment) -> DriftVerdict | None:
    """The newest verdict on the live generation; None before any recovery was reported."""
    return None if deployment.drift is None else DriftVerdict.from_json(deployment.drift)


def look(
    session: Session, deployment: StoredDeployment, policy: DriftPolicy, now: float
) -> DriftVerdict | None:
    """Judge the live generation's window and keep the verdict; None with no recovery reported."""
    found = _judged(session, deployment, policy, now)
    deployment.drift = None if found is None else found.to_json()
    return found


def _judged(
    session: Session, deployment: StoredDeployment, policy: DriftPolicy, now: float
) -> DriftVerdict | None:
    reports = _reports(session, deployment)
    if not reports:
        return None
    plan = plan_store.load(session, deployment.plan_id)
    profile = profile_store.load(session, plan.profile.digest)
    promised = promise(profile, plan)
    if promised is None:
        return DriftVerdict(
            reason=f"profile {profile.name!r} ({profile.heads.form}) promises no recovery"
        )
    observed = gather(reports, _holders(session, deployment, plan), *promised.recovery.shape)
    return judge(promised, observed, verdict(deployment), policy, now)


def _holders(session: Session, deployment: StoredDeployment, plan: Plan) -> dict[str, Mask]:
    """Which heads, [layers, heads], each of the deployment's nodes computes any part of.

    A head with a part that no node serves, for one has left, is nobody's: the rest is no sample.
    """
    serving = node_store.serving(session, deployment.name)
    parts = {node.node_id: set(node.part) for node in serving}
    served = set().union(*parts.values())
    devices = [
        [{entry.device for entry in entries} for entries in layer.heads] for layer in plan.layers
    ]
    return {
        name: np.array([[here <= served and not here.isdisjoint(p) for here in d] for d in devices])
        for name, p in parts.items()
    }


def _reports(session: Session, deployment: StoredDeployment) -> list[RecoveryReport]:
    """What the live generation's window of batches saw."""
    window = recovery_store.of_generation(session, deployment.name, deployment.generation)
    return [
        RecoveryReport(row.batch, row.node_id, int(layer), int(head), int(rows), float(recovery))
        for row in window
        for layer, head, rows, _, recovery in row.figures
    ]


def corrected_profile(session: Session, deployment: StoredDeployment, plan: Plan) -> ModelProfile:
    """The live plan's profile with its curves as the window saw them."""
    profile = profile_store.load(session, plan.profile.digest)
    promised = promise(profile, plan)
    assert promised is not None  # else nothing drifted
    reports = _reports(session, deployment)
    observed = gather(reports, _holders(session, deployment, plan), *promised.recovery.shape)
    rounds = int(observed.rounds.max(initial=0))
    seen_by = (
        f"generation {deployment.generation} of deployment {deployment.name} observed in "
        f"{rounds} rounds"
    )
    return corrected(profile, promised.recovery, observed.recovery, seen_by)
