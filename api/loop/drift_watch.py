"""Watches a live deployment for drift: judged from what is stored, the verdict kept with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from api.loop.drift import (
    DriftPolicy,
    DriftVerdict,
    Kind,
    Mask,
    ObservedRecovery,
    PromisedRecovery,
    RecoveryReport,
    fallen,
    gather,
    judge,
    judge_kinds,
)
from api.loop.engine_rows import EngineRows, means
from api.loop.promise import Promise
from api.store import node_store, plan_store, profile_store, recovery_store, watched_store
from api.store.session import Session
from api.store.tables import StoredDeployment
from api.store.watched_store import LayerWatched
from profiles.correction import corrected
from profiles.errors import HplbError
from profiles.model import ModelProfile
from solver.plans import Plan


class DriftError(HplbError):
    """Nothing can be corrected by what was observed."""


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
    told, reports = _told(session, deployment), _reports(session, deployment)
    if not told and not reports:
        return None
    plan = plan_store.load(session, deployment.plan_id)
    profile = profile_store.load(session, plan.profile.digest)
    promise, before = Promise.of(profile, plan), verdict(deployment)
    if promise is None:
        return DriftVerdict(
            reason=f"profile {profile.name!r} ({profile.heads.form}) promises no recovery"
        )
    if not told:
        observed = _observed(session, deployment, plan, reports)
        return judge(promise.recovery(), observed, before, policy, now)
    found = judge_kinds(_Window.of(told, promise).seen, before, policy, now)
    if found.kinds:
        return found
    return DriftVerdict(reason="no request was longer than the budgets, which lost nothing of it")


@dataclass(frozen=True, eq=False)
class _Window:
    """The rows of an engine that their budgets may cost something, and what is known of each kind
    of them."""

    rows: EngineRows
    seen: dict[Kind, tuple[PromisedRecovery, ObservedRecovery]]

    @classmethod
    def of(cls, told: Sequence[LayerWatched], promise: Promise) -> Self:
        rows = promise.of_rows(_rows(told))
        seen = {}
        for kind, chosen in rows.kinds().items():
            of_kind = rows.only(chosen)
            promised, observed = means(of_kind, promise.budgets.shape)
            context = round(of_kind.mean_last())
            seen[kind] = promise.with_spread(promised, context), observed
        return cls(rows, seen)


def _told(session: Session, deployment: StoredDeployment) -> list[LayerWatched]:
    """What an engine watched in the live generation's window."""
    return watched_store.of_generation(session, deployment.name, deployment.generation)


def _rows(told: Sequence[LayerWatched]) -> EngineRows:
    sizes = [len(each.recovery) for each in told]
    nodes = {name: number for number, name in enumerate(sorted({each.node for each in told}))}
    columns = np.concatenate([each.rows for each in told]).astype(np.int64)
    prefill, head, first, last, rows = columns.T
    recovery = np.concatenate([each.recovery for each in told])
    return EngineRows(
        batch=np.repeat([each.batch for each in told], sizes),
        node=np.repeat([nodes[each.node] for each in told], sizes),
        prefill=prefill == 1,
        layer=np.repeat([each.layer for each in told], sizes),
        head=head,
        first=first,
        last=last,
        rows=rows,
        recovery=recovery,
        promised=np.full(len(recovery), np.nan),
    )


def _observed(
    session: Session, deployment: StoredDeployment, plan: Plan, reports: list[RecoveryReport]
) -> ObservedRecovery:
    """What rounds of the plan's own workload saw."""
    shape = np.array(plan.budgets).shape
    return gather(reports, _holders(session, deployment, plan), *shape)


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


def corrected_profile(
    session: Session, deployment: StoredDeployment, plan: Plan, policy: DriftPolicy
) -> ModelProfile:
    """The live plan's profile with its curves as the window saw them.

    Raises DriftError where what fell short were requests of other contexts than the plan's budgets
    are made for, whose curves say nothing of these.
    """
    profile = profile_store.load(session, plan.profile.digest)
    promise, told = Promise.of(profile, plan), _told(session, deployment)
    assert promise is not None  # else nothing drifted
    by = f"generation {deployment.generation} of deployment {deployment.name} observed in"
    if not told:
        seen = _observed(session, deployment, plan, _reports(session, deployment))
        seen_by = f"{by} {int(seen.rounds.max(initial=0))} rounds"
        return corrected(profile, promise.recovery().recovery, seen.recovery, seen_by)
    window, judged = _Window.of(told, promise), verdict(deployment)
    short = _short(window, judged, policy)
    if not short.any():
        raise DriftError("drift, but of no request since: nothing to plan by")
    expected, observed = promise.at_measured(window.rows.only(short))
    found = corrected(profile, expected, observed, f"{by} service")
    now = Promise.of(found, plan)
    assert now is not None
    if np.array_equal(now.recovery().recovery, promise.recovery().recovery):
        raised = () if judged is None else judged.kinds
        contexts = sorted({each.kind.context_tokens for each in raised if each.verdict.raised})
        raise DriftError(
            f"drift of requests of up to {', '.join(f'{each:,}' for each in contexts)} tokens says "
            f"nothing of {promise.workload.context_tokens:,}, which the budgets are made for: ask "
            "for a plan for what is served"
        )
    return found


def _short(window: _Window, judged: DriftVerdict | None, policy: DriftPolicy) -> Mask:
    """Which rows are of heads that fell short, and of the kind of requests that they did so in."""
    raised = set() if judged is None else {e.kind for e in judged.kinds if e.verdict.raised}
    short = np.zeros(len(window.rows.rows), dtype=bool)
    for kind, of_kind in window.rows.kinds().items():
        _, _, drifted = fallen(*window.seen[kind], kind in raised, policy)
        short |= of_kind & drifted[window.rows.layer, window.rows.head]
    return short
