"""What is shown of deployments and nodes: over HTTP and as gauges."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from prometheus_client.core import GaugeMetricFamily

from api.client.bodies import (
    Active,
    DeploymentView,
    GenerationView,
    MeasuredView,
    NodeView,
    PredictedView,
    RecoveryDrift,
    TrafficClass,
)
from api.deployments.accuracy import RoundMedians, measure, predict, prediction_error, time_drift
from api.deployments.leases import Leases
from api.deployments.served import ServedSteps, served
from api.loop import drift_watch
from api.loop.drift import DriftVerdict
from api.store import deployment_store, node_store, plan_store, sample_store
from api.store.database import Database
from api.store.session import Session
from api.store.tables import StoredDeployment, StoredGeneration, StoredNode

MOST_KNOWN = 256
"""Generations of deployments whose figures are remembered."""
MOST_SERIES = 1000
"""Of a gauge: names are clients', and a scrape must not grow with all that anyone made up."""


def moment(epoch_s: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat()


def deployment_view(
    session: Session,
    deployment: StoredDeployment,
    leases: Leases,
    past: StoredGeneration | None = None,
) -> DeploymentView:
    """A deployment with its history, what was predicted of it and what was measured.

    With `past`, plan and figures are that generation's, over the layers it was measured on. Where
    nodes of it are gone, its decision says for which devices to plan instead.
    """
    generation = past.generation if past else deployment.generation
    plan_id = past.plan_id if past else deployment.plan_id
    figures = _figures(session, deployment, generation, plan_id)
    history = deployment_store.history(session, deployment.name)
    return DeploymentView(
        name=deployment.name,
        generation=generation,
        plan_id=plan_id,
        nodes=deployment.nodes,
        layers=figures.layers,
        rounds=deployment.rounds,
        every_s=deployment.every_s,
        refine=deployment.refine,
        history=[
            GenerationView(
                generation=entry.generation,
                plan_id=entry.plan_id,
                reason=entry.reason,
                at=moment(entry.at),
            )
            for entry in history
        ],
        measured=figures.measured,
        predicted=figures.predicted,
        prediction_error=figures.error,
        drift=figures.drift,
        recovery_drift=_recovery_drift(deployment) if past is None else None,
        traffic=figures.traffic,
        decision=_incomplete(session, deployment, leases) or deployment.decision,
    )


def _incomplete(session: Session, deployment: StoredDeployment, leases: Leases) -> str | None:
    """Which nodes that serve a deployment let their leases run out, and what is left without them;
    None where all of them live."""
    serving = sorted(node_store.serving(session, deployment.name), key=lambda node: node.node_id)
    left_s = [leases.left_s(node) for node in serving]
    gone = ", ".join(
        f"node {node.node_id} let its lease run out {-left:.0f} s ago"
        for node, left in zip(serving, left_s, strict=True)
        if left <= 0
    )
    live = [node for node, left in zip(serving, left_s, strict=True) if left > 0]
    if not gone or not live:
        return f"incomplete: {gone}; none of its nodes is left" if gone else None
    types = Counter(kind for node in live for kind in node.devices)
    devices = " and ".join(f"{count} {kind}" for kind, count in sorted(types.items()))
    names = ", ".join(node.node_id for node in live)
    return f"incomplete: {gone}; plan for the {devices} of {names} and put the deployment on them"


@dataclass(frozen=True)
class _Figures:
    """What there is to compute of a generation, over its layers; `bound_s` only of one workload."""

    layers: list[int]
    predicted: PredictedView
    bound_s: float | None
    gap: float
    measured: MeasuredView | None
    error: float | None
    drift: float | None
    traffic: list[TrafficClass] | None


_known: WeakKeyDictionary[object, OrderedDict[tuple[Any, ...], _Figures]] = WeakKeyDictionary()
"""By database and by all that the figures depend on, the newest batch of measurements included."""


def _figures(
    session: Session, deployment: StoredDeployment, generation: int, plan_id: str
) -> _Figures:
    """Computed anew only where something was measured since."""
    newest = sample_store.newest_round(session, deployment.name, generation)
    past = generation != deployment.generation
    of = (deployment.name, generation, plan_id, newest, past, *deployment.layers)
    known = _known.setdefault(session.get_bind(), OrderedDict())
    found = known.get(of)
    if found is None:
        found = known[of] = _computed(session, deployment, generation, plan_id)
        while len(known) > MOST_KNOWN:
            known.popitem(last=False)
    return found


def _computed(
    session: Session, deployment: StoredDeployment, generation: int, plan_id: str
) -> _Figures:
    plan = plan_store.load(session, plan_id)
    found = served(session, deployment, generation, plan)
    timed = None if found else sample_store.of_generation(session, deployment.name, generation)
    layers = deployment.layers
    if generation != deployment.generation and timed:
        layers = np.unique(timed.seconds[:, 0]).astype(int).tolist()
    predicted = found.predicted if found else predict(plan, layers)
    # Of several workloads it bounds all of them together, not what runs.
    bound_s = sum(plan.layers[i].lower_bound_s for i in layers)
    measured = error = drift = traffic = None
    if found:
        measured, traffic = _measured(found.means, "concurrent"), _traffic(found)
        error, drift = found.error, found.slowdown
    elif timed and (medians := measure(plan, layers, timed.seconds)):
        measured = _measured(medians, timed.timing)
        error, drift = prediction_error(plan, layers, medians), time_drift(predicted, medians)
    return _Figures(
        layers=layers,
        predicted=predicted,
        bound_s=None if plan.other_workloads else bound_s,
        gap=plan.gap,
        measured=measured,
        error=error,
        drift=drift,
        traffic=traffic,
    )


def _traffic(found: ServedSteps) -> list[TrafficClass]:
    return [
        TrafficClass(
            phase=each.phase,
            context_tokens=each.context_tokens,
            batch_size=each.batch_size,
            share=each.share,
        )
        for each in found.traffic.classes()
    ]


def _recovery_drift(deployment: StoredDeployment) -> RecoveryDrift | None:
    verdict = drift_watch.verdict(deployment)
    if verdict is None:
        return None
    requests = [
        {
            **_fields(each.verdict),
            "phase": each.kind.phase,
            "context_tokens": each.kind.context_tokens,
        }
        for each in verdict.kinds
    ]
    return RecoveryDrift.model_validate({**_fields(verdict), "requests": requests or None})


def _fields(verdict: DriftVerdict) -> dict[str, Any]:
    worst = [
        {**asdict(head), **({} if head.kind is None else asdict(head.kind))}
        for head in verdict.worst
    ]
    since = None if verdict.since is None else moment(verdict.since)
    return {**asdict(verdict), "since": since, "worst": worst}


def _measured(found: RoundMedians, timing: str) -> MeasuredView:
    loads = [[None if np.isnan(s) else float(s) for s in layer] for layer in found.loads_s]
    return MeasuredView.model_validate(
        {
            "rounds": found.rounds,
            "device_loads_s": loads,
            "makespan_s": found.makespan_s,
            "bubble_ratio": found.bubble_ratio,
            "timing": timing,
        }
    )


def node_view(node: StoredNode, left_s: float) -> NodeView:
    """A node; live while its lease runs, of which `left_s` seconds are left."""
    active = None
    if node.active_deployment is not None and node.active_generation is not None:
        active = Active(deployment=node.active_deployment, generation=node.active_generation)
    return NodeView(
        node_id=node.node_id,
        boot_id=node.boot_id,
        devices=node.devices,
        backend=node.backend,
        versions=node.versions,
        live=left_s > 0,
        lease_expires_at=moment(node.lease_expires_at),
        active=active,
        error=node.error,
    )


def gauges(database: Database, leases: Leases, now: float) -> Sequence[GaugeMetricFamily]:
    """The state of deployments and nodes for a scrape; nothing where nothing is known.

    Raises UnavailableError where the database does not answer.
    """

    def per_deployment(name: str, help_text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, help_text, labels=["deployment"])

    generation = per_deployment("hplb_deployment_generation", "Generation that is live.")
    makespan = per_deployment("hplb_plan_makespan_seconds", "Predicted, over the layers run.")
    bound = per_deployment("hplb_plan_bound_seconds", "Proven lower bound, over the layers run.")
    gap = per_deployment("hplb_plan_gap_ratio", "1 - bound / makespan of the live plan.")
    age = per_deployment("hplb_plan_age_seconds", "How long the live generation stands.")
    bubble = per_deployment("hplb_plan_bubble_ratio", "Predicted idle share of device time.")
    measured = per_deployment("hplb_measured_makespan_seconds", "Makespan of measured medians.")
    waited = per_deployment("hplb_measured_bubble_ratio", "Measured idle share of device time.")
    error = per_deployment("hplb_cost_model_error_ratio", "Mean relative error of predicted loads.")
    drifted = per_deployment("hplb_deployment_drift_ratio", "Measured over predicted makespan.")
    recovered = per_deployment("hplb_recovery_observed_mean", "Over the heads and rounds watched.")
    least = per_deployment("hplb_recovery_observed_min", "The least of a head, over its rounds.")
    promised = per_deployment("hplb_recovery_expected_mean", "What the profile promised of them.")
    heads = per_deployment("hplb_recovery_drifted_heads", "Heads that recover less than promised.")
    raised = per_deployment("hplb_recovery_drift_raised", "1 while drift is raised.")
    live = GaugeMetricFamily("hplb_node_live", "1 while the lease runs.", labels=["node"])
    active = GaugeMetricFamily(
        "hplb_node_active_generation", "Generation a node says it runs.", labels=["node"]
    )
    with database.read() as session:
        for deployment in deployment_store.every(session)[:MOST_SERIES]:
            figures = _figures(session, deployment, deployment.generation, deployment.plan_id)
            began = session.get_one(StoredGeneration, (deployment.name, deployment.generation)).at
            for family, value in (
                (generation, deployment.generation),
                (makespan, figures.predicted.makespan_s),
                (bound, figures.bound_s),
                (gap, figures.gap),
                (age, max(0.0, now - began)),
                (bubble, figures.predicted.bubble_ratio),
                (measured, figures.measured.makespan_s if figures.measured else None),
                (waited, figures.measured.bubble_ratio if figures.measured else None),
                (error, figures.error),
                (drifted, figures.drift),
                *_recovery_values(
                    _recovery_drift(deployment), (recovered, least, promised, heads, raised)
                ),
            ):
                if value is not None:
                    family.add_metric([deployment.name], value)
        for node in node_store.every(session)[:MOST_SERIES]:
            live.add_metric([node.node_id], float(leases.left_s(node) > 0))
            if node.active_generation is not None:
                active.add_metric([node.node_id], node.active_generation)
    per_name = [generation, makespan, bound, gap, age, bubble, measured, waited, error, drifted]
    return [*per_name, recovered, least, promised, heads, raised, live, active]


def _recovery_values(
    drift: RecoveryDrift | None, families: Sequence[GaugeMetricFamily]
) -> Iterable[tuple[GaugeMetricFamily, float | None]]:
    if drift is None or drift.reason is not None:
        return []
    values = (
        drift.observed_mean,
        drift.observed_min,
        drift.expected_mean,
        drift.heads_drifted,
        float(drift.raised),
    )
    return zip(families, values, strict=True)
