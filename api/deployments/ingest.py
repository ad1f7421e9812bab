"""Takes in batches of measurements: each once, whole or not at all, only for what is live.

What waits together is looked up, checked and stored together: nodes report by the hundred a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.client.bodies import MeasurementBody, MeasurementReceipt, SampleColumns
from api.deployments.plausible import (
    Ints,
    Samples,
    check_heads,
    check_places,
    check_steps,
    check_watched,
    doubts,
)
from api.problems import Problem, bad_field, not_found
from api.store import (
    deployment_store,
    node_store,
    plan_store,
    recovery_store,
    sample_store,
    served_store,
    watched_store,
)
from api.store.served_store import Reported, Step
from api.store.session import Session
from api.store.tables import StoredDeployment, StoredNode
from api.store.watched_store import LayerWatched
from profiles.cost.work import FEATURES, Phase
from solver.plans import Plan


@dataclass(frozen=True, eq=False)
class Arrival:
    """A batch that came `at`; of heads' recovery a node's newest `window` batches are kept."""

    batch: MeasurementBody
    window: int
    at: float


@dataclass(frozen=True)
class Intake:
    """What became of a batch: the number it is stored under, 0 of a duplicate, the device types and
    phases of its accepted samples, and how many were rejected by reason."""

    receipt: MeasurementReceipt
    number: int = 0
    kinds: frozenset[tuple[str, Phase]] = frozenset()
    rejected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Checked:
    """A batch that is to be stored: its row, its samples that are believed, and their plan."""

    arrival: Arrival
    row: dict[str, Any]
    believed: Samples
    plan: Plan
    rejected: Mapping[str, int]


def take_in(session: Session, arrivals: list[Arrival]) -> list[Intake | Exception]:
    """Store batches unless their ids were seen before; for `Database.submit`.

    An outcome is a Problem, with nothing of that batch stored: 404 unknown deployment or plan, 409
    superseded generation, 422 samples of devices or layers that the node does not run.
    """
    batches = [arrival.batch for arrival in arrivals]
    seen = sample_store.seen(session, [batch.batch_id for batch in batches])
    live = deployment_store.live(session, {batch.deployment for batch in batches})
    nodes = node_store.named(session, {batch.node_id for batch in batches})
    checked: dict[str, _Checked] = {}
    outcomes: list[Intake | Exception | None] = []
    for arrival in arrivals:
        batch_id = arrival.batch.batch_id
        if batch_id in seen:
            known = seen[batch_id]
            outcomes.append(_duplicate(batch_id, known.accepted, known.rejected))
            continue
        if batch_id in checked:
            counts = checked[batch_id].row
            outcomes.append(_duplicate(batch_id, counts["accepted"], counts["rejected"]))
            continue
        try:
            checked[batch_id] = _check(session, arrival, live, nodes)
            outcomes.append(None)
        except Problem as problem:
            outcomes.append(problem)
    stored = iter(_store(session, list(checked.values())))
    return [next(stored) if outcome is None else outcome for outcome in outcomes]


def _duplicate(batch_id: str, accepted: int, rejected: int) -> Intake:
    return Intake(
        MeasurementReceipt(batch_id=batch_id, duplicate=True, accepted=accepted, rejected=rejected)
    )


def _check(
    session: Session,
    arrival: Arrival,
    live: Mapping[str, StoredDeployment],
    nodes: Mapping[str, StoredNode],
) -> _Checked:
    batch = arrival.batch
    deployment, node = live.get(batch.deployment), nodes.get(batch.node_id)
    known = deployment is not None and batch.plan_id == deployment.plan_id
    if not known and plan_store.find_summary(session, batch.plan_id) is None:
        raise not_found("plan", batch.plan_id)
    if deployment is None:
        raise not_found("deployment", batch.deployment)
    if batch.generation != deployment.generation:
        raise Problem(
            409,
            f"generation {batch.generation} of {batch.deployment!r} is not live; "
            f"it is on generation {deployment.generation}",
        )
    if node is None or node.deployment != deployment.name:
        raise Problem(409, f"node {batch.node_id!r} does not serve {batch.deployment!r}")
    if batch.plan_id != deployment.plan_id:
        raise bad_field("plan_id", f"generation {batch.generation} runs plan {deployment.plan_id}")
    plan = plan_store.load(session, batch.plan_id)
    samples = _samples(batch)
    check_steps(samples, len(batch.steps or []))
    check_places(samples, node.node_id, node.part, deployment.layers)
    check_heads(samples, plan)
    check_watched(samples, plan)
    doubted = doubts(samples, plan, batch.steps or [])
    believed = ~np.any(list(doubted.values()), axis=0)
    row = {
        "batch_id": batch.batch_id,
        "deployment": deployment.name,
        "generation": deployment.generation,
        "plan_id": plan.id,
        "node_id": node.node_id,
        "timing": batch.timing,
        "accepted": int(believed.sum()),
        "rejected": int((~believed).sum()),
        "received_at": arrival.at,
    }
    rejected = {reason: int(of_it.sum()) for reason, of_it in doubted.items()}
    return _Checked(arrival, row, samples.only(believed), plan, rejected)


def _samples(batch: MeasurementBody) -> Samples:
    """Raises Problem: 422 for a feature that nobody knows."""
    in_columns = batch.columns is not None
    columns = batch.columns or SampleColumns.of(batch.samples or [])
    unknown = sorted(set(columns.work) - set(FEATURES))
    if unknown:
        holder = next(
            (i for i, sample in enumerate(batch.samples or []) if unknown[0] in sample.work), 0
        )
        raise bad_field(
            "columns.work" if in_columns else f"samples.{holder}.work",
            f"unknown feature {unknown[0]!r}; known are {', '.join(FEATURES)}",
        )
    nothing = [0.0] * len(columns.layer)
    return Samples(
        layers=np.array(columns.layer),
        devices=np.array(columns.device),
        seconds=np.array(columns.seconds),
        work=np.array([columns.work.get(name, nothing) for name in FEATURES]).T,
        heads=columns.heads,
        watched=columns.watched,
        in_columns=in_columns,
        steps=_places(columns.step),
    )


def _places(steps: Sequence[int | None] | None) -> Ints | None:
    """Raises Problem: 422 where some samples are of a step and others of none."""
    if steps is None:
        return None
    missing = [number for number, step in enumerate(steps) if step is None]
    if missing:
        raise bad_field(f"samples.{missing[0]}.step", "is missing, where other samples have one")
    return np.array(steps)


def _store(session: Session, checked: list[_Checked]) -> list[Intake]:
    if not checked:
        return []
    steps = []
    numbers = sample_store.keep_batches(session, [each.row for each in checked])
    rounds: list[dict[str, Any]] = []
    intakes = []
    for number, each in zip(numbers, checked, strict=True):
        row = each.row
        already = len(rounds)
        rounds += _rounds(number, each)
        if each.arrival.batch.steps:
            steps.append((row, _reported(number, each.arrival.batch)))
        figures = each.believed.head_rows()
        if figures:
            recovery_store.keep(session, number, row, figures, each.arrival.window)
        watched = _watched(number, each)
        if watched:
            watched_store.keep(session, row, watched, each.arrival.window)
        kinds = frozenset((of["device_type"], of["phase"]) for of in rounds[already:])
        receipt = MeasurementReceipt(
            batch_id=row["batch_id"],
            duplicate=False,
            accepted=row["accepted"],
            rejected=row["rejected"],
        )
        intakes.append(Intake(receipt, number, kinds, each.rejected))
    sample_store.keep_rounds(session, rounds)
    served_store.keep(session, steps)
    return intakes


def _reported(number: int, batch: MeasurementBody) -> Reported:
    steps = [
        Step(
            step.number,
            step.phase == "prefill",
            step.sequences,
            step.new_tokens,
            step.context_tokens,
            step.mean_tokens,
        )
        for step in batch.steps or []
    ]
    return Reported(number, batch.node_id, batch.run or "", steps)


def _watched(number: int, checked: _Checked) -> list[LayerWatched]:
    """What was watched, of each layer."""
    watched, samples = checked.believed.watched, checked.believed
    if watched is None or not watched.sample or samples.steps is None:
        return []
    sample = np.array(watched.sample)
    prefill = np.array([step.phase == "prefill" for step in checked.arrival.batch.steps or []])
    columns = (watched.head, watched.first, watched.last, watched.rows)
    rows = np.column_stack([prefill[samples.steps[sample]], *columns])
    layers, recovery = samples.layers[sample], np.array(watched.recovery)
    node = checked.arrival.batch.node_id
    return [
        LayerWatched(number, node, layer, rows[layers == layer], recovery[layers == layer])
        for layer in np.unique(layers).tolist()
    ]


def _rounds(number: int, checked: _Checked) -> list[dict[str, Any]]:
    """A row for each type of device that was timed and each phase."""
    plan, samples, row = checked.plan, checked.believed, checked.row
    types = np.array([plan.devices[device] for device in samples.devices.tolist()])
    phases, contexts = _workloads(checked)
    found = []
    for name, phase in dict.fromkeys(zip(types.tolist(), phases.tolist(), strict=True)):
        chosen = (types == name) & (phases == phase)
        of_kind = samples.only(chosen)
        found.append(
            {
                **{key: row[key] for key in ("deployment", "generation", "node_id", "timing")},
                "batch": number,
                "device_type": name,
                "phase": phase,
                "context_tokens": int(contexts[chosen].max()),
                "samples": len(of_kind.layers),
                "layers": sample_store.packed_places(of_kind.layers),
                "devices": sample_store.packed_places(of_kind.devices),
                "seconds": sample_store.packed_floats(of_kind.seconds),
                "features": list(FEATURES),
                "work": sample_store.packed_work(of_kind.work),
                "steps": (
                    None if of_kind.steps is None else sample_store.packed_places(of_kind.steps)
                ),
            }
        )
    return found


def _workloads(checked: _Checked) -> tuple[NDArray[np.str_], Ints]:
    """The phase and the longest context of every believed sample: its step's, else the plan's."""
    samples, step = checked.believed, checked.plan.workload
    if samples.steps is None:
        count = len(samples.layers)
        return np.full(count, step.phase), np.full(count, step.context_tokens)
    steps = checked.arrival.batch.steps or []
    phases = np.array([each.phase for each in steps])[samples.steps]
    return phases, np.array([each.context_tokens for each in steps])[samples.steps]
