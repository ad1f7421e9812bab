"""The plan's figures and certificate from what was decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from profiles.cost.rates import Rates
from profiles.cost.work import Workload
from profiles.model import ModelProfile
from solver.budgets.allocate import Budgets
from solver.budgets.elastic import ElasticRules
from solver.budgets.least_error import loss_ratio, summed_error
from solver.deadline import Deadline
from solver.planning import figures
from solver.planning.advice import advise, slot_notes, step_notes
from solver.planning.other_deployment import elsewhere
from solver.planning.replicas import nodes_report
from solver.planning.scenarios import Scenario
from solver.planning.settle import Settled
from solver.planning.slots import Slots, padding
from solver.planning.whole_step import whole_step
from solver.plans import (
    Costs,
    Elastic,
    Entry,
    Filled,
    LayerPlan,
    OtherWorkload,
    Padding,
    Plan,
    ProfileRef,
    PromisedLoss,
    Recovered,
    Rules,
    Step,
)
from solver.problem import PlacementProblem
from solver.request import PlanRequest
from solver.shares import Floats, Shares
from solver.solution import Solution


@dataclass(frozen=True, eq=False)
class Draft:
    """Everything decided; `problem` is by head, weighted by the solution's multipliers.

    `shares` [workloads][layers] are realised in each workload's query blocks.
    """

    request: PlanRequest
    steps: Sequence[Scenario]
    problem: PlacementProblem
    solution: Solution
    shares: Sequence[Sequence[Shares]]
    slots: Slots | None
    settled: Settled
    filled: Filled | None
    cancelled: bool


def assemble(draft: Draft, deadline: Deadline) -> Plan:
    """The plan, not yet identified; reports that search have until the deadline."""
    request, first, problem = draft.request, draft.steps[0], draft.problem
    architecture = first.known.profile.architecture
    weights = problem.weights
    loads = problem.loads_of_each(draft.shares)  # [workloads, layers, devices]
    blended = np.tensordot(weights, loads, 1)
    makespans = loads.max(axis=2)  # [workloads, layers]
    layer_s = weights @ makespans
    each_s = makespans.sum(axis=1)
    worst = request.objective == "worst"
    makespan_s = float(each_s.max() if worst else weights @ each_s)
    bound_s = min(draft.solution.lower_bound_s, makespan_s)
    gap = 1 - bound_s / makespan_s
    present = [figures.Present.of(own, problem.kv_heads) for own in draft.shares[0]]
    slots = None if draft.slots is None else draft.slots.number
    stock, stock_reason = figures.stock_compatible(draft.shares[0], present, slots)
    names = list(dict.fromkeys(request.device_types))
    whole = whole_step(request, draft.steps, weights, draft.shares, loads, deadline)
    return Plan(
        status="optimal" if gap <= request.tolerance else "feasible",
        solver=request.method,
        reason=_reason(draft) if gap > request.tolerance else None,
        makespan_s=makespan_s,
        lower_bound_s=bound_s,
        gap=gap,
        tolerance=request.tolerance,
        bubble_ratio=figures.bubble_ratio(blended, layer_s),
        imbalance=figures.imbalance(blended, layer_s, identical=problem.identical),
        stock_compatible=stock,
        stock_reason=stock_reason,
        kv_copies=figures.kv_copies(present),
        divisions=figures.divisions(draft.shares[0]),
        kv_bytes=figures.kv_bytes(present, architecture, first.workload, slots),
        budgets=first.budgets.tokens.tolist(),
        selection=first.selection,
        warnings=[
            *step_notes(first.known.profile.name, whole),
            *_warnings(draft, names),
            *advise(problem, request, bound_s),
            *_slot_notes(draft, makespan_s),
        ],
        layers=_layer_plans(draft, blended, layer_s),
        profile=_reference(first.known.profile),
        architecture=architecture,
        workload=_step(first.workload),
        rules=_rules(request),
        devices=request.device_types,
        device_types=names,
        cost_model={name: first.known.rates[name].version for name in names},
        costs=_costs(problem, 0),
        slots=slots,
        padding=_padding(draft, present),
        weight=float(weights[0]),
        other_workloads=[
            OtherWorkload(
                weight=float(weights[w]),
                workload=_step(step.workload),
                profile=_reference(step.known.profile),
                budgets=step.budgets.tokens.tolist(),
                selection=step.selection,
                costs=_costs(problem, w),
                makespan_s=float(each_s[w]),
                loads_s=loads[w].tolist(),
            )
            for w, step in enumerate(draft.steps)
            if w > 0
        ],
        memory=draft.settled.memory(draft.shares[0]),
        moving=draft.settled.moving(makespan_s),
        recovery=_recovered(first.budgets),
        loss=_promised(request, first),
        budget_gap=first.budgets.gap,
        filled=draft.filled,
        elastic=_elastic(draft.steps[0].budgets.rules),
        whole_step=whole,
        elsewhere=elsewhere(request, draft.steps, draft.shares, deadline),
        nodes=nodes_report(request, problem, draft.shares[0], deadline),
    )


def _layer_plans(draft: Draft, loads: Floats, makespans: Floats) -> list[LayerPlan]:
    stated = draft.shares[0]
    whole: dict[int, Entry] = {}
    # Validated at once: made one by one, thousands of entries take longer than the search.
    return [
        LayerPlan.model_validate(
            {
                "makespan_s": float(makespans[index]),
                "lower_bound_s": min(layer.bound.seconds, float(makespans[index])),
                "bound": layer.bound.proof,
                "loads_s": loads[index].tolist(),
                "heads": _entries(stated[index], whole),
            }
        )
        for index, layer in enumerate(draft.solution.layers)
    ]


def _entries(shares: Shares, whole: dict[int, Entry]) -> list[list[Entry | dict[str, Any]]]:
    """Every head's devices in order with their shares, as a plan's JSON has them.

    `whole`: the entries of whole heads, which all that a device has share.
    """
    entries: list[list[Entry | dict[str, Any]]] = [[] for _ in range(shares.items)]
    parts = (shares.item.tolist(), shares.device.tolist(), shares.share.tolist())
    for head, device, share in zip(*parts, strict=True):
        if share < 1:
            entries[head].append({"device": device, "share": share})
            continue
        if device not in whole:
            whole[device] = Entry(device=device, share=1.0)
        entries[head].append(whole[device])
    return entries


def _costs(problem: PlacementProblem, workload: int) -> Costs:
    parts = problem.part_s[workload]
    return Costs(
        head_s=problem.head_s[workload].tolist(),
        part_s=parts.tolist() if parts.any() else [],
        group_s=problem.group_s[workload].tolist(),
        launch_s=problem.launch_s[workload].tolist(),
    )


def _recovered(budgets: Budgets) -> Recovered | None:
    if budgets.recovery is None or budgets.curve is None:
        return None
    return Recovered(
        curve=budgets.curve,
        mean=budgets.recovery.mean(axis=1).clip(0, 1).tolist(),
        least=budgets.recovery.min(axis=1).tolist(),
    )


def _promised(request: PlanRequest, first: Scenario) -> PromisedLoss | None:
    if request.budget.loss is None:
        return None
    profile = first.known.profile
    error = summed_error(profile, first.budgets.tokens, first.workload)
    ratio = loss_ratio(profile)
    # What rounds above the bound is the bound.
    nats, low, high = (
        min(error * each, request.budget.loss) for each in (ratio.mean, ratio.low, ratio.high)
    )
    return PromisedLoss(bound=request.budget.loss, nats=nats, low=low, high=high)


def _elastic(rules: ElasticRules | None) -> Elastic | None:
    if rules is None:
        return None
    return Elastic(
        alpha=rules.alpha.tolist(),
        beta=rules.beta.tolist(),
        loss=rules.loss,
        lower_bound=min(rules.lower_bound, rules.loss),
        density=[min(share, 1.0) for share in rules.density.tolist()],
        contexts=list(rules.contexts),
    )


def _step(workload: Workload) -> Step:
    return Step(
        context_tokens=workload.context_tokens,
        phase=workload.phase,
        batch_size=workload.batch_size,
        deployment=workload.deployment,
        block_tokens=workload.block_tokens,
        piece_tokens=workload.piece_tokens,
    )


def _reference(profile: ModelProfile) -> ProfileRef:
    return ProfileRef(
        name=profile.name,
        digest=profile.digest,
        source=profile.source,
        synthetic=profile.synthetic,
    )


def _rules(request: PlanRequest) -> Rules:
    placement = request.placement
    return Rules(
        unit=placement.unit,
        equal_counts=placement.equal_counts,
        divisible=placement.divisible,
        max_copies=placement.max_copies,
        copies=placement.copies,
        objective=request.objective,
    )


def _slot_notes(draft: Draft, makespan_s: float) -> list[str]:
    if draft.slots is None:
        return []
    others = [(other.slots, other.makespan_s) for other in draft.slots.others]
    return slot_notes(draft.slots.number, makespan_s, others, draft.slots.pays_from_tokens)


def _padding(draft: Draft, present: Sequence[figures.Present]) -> Padding | None:
    slots, problem = draft.slots, draft.problem
    if slots is None:
        return None
    types = list(dict.fromkeys(draft.request.device_types))
    launch_s = np.array(
        [[step.known.rates[name].seconds_per["launches"] for name in types] for step in draft.steps]
    )
    slot_s = problem.weights @ (problem.launch_s - launch_s) / slots.number
    more = slots.number - slots.least
    return padding(slots, present, problem.layers * more * float(slot_s.max()))


def _reason(draft: Draft) -> str | None:
    if draft.cancelled:
        return f"cancelled: the best so far; {draft.solution.reason or 'not proved'}"
    return draft.solution.reason or "rounding to query blocks left more than the tolerance open"


def _warnings(draft: Draft, names: list[str]) -> list[str]:
    """What the budgets and the rates warn of, each once."""
    notes = [note for step in draft.steps for note in step.budgets.warnings]
    for step in draft.steps:
        notes += _rate_warnings(step, names)
    if draft.request.placement.memory is not None:
        notes.append("the proven bound does not know of memory: a tight limit shows as a gap")
    return list(dict.fromkeys(notes))


def _rate_warnings(step: Scenario, names: list[str]) -> list[str]:
    notes = []
    for name in names:
        rates: Rates = step.known.rates[name]
        if not rates.measured:
            notes.append(f"{name}: its seconds come from the {rates.source}")
        elif rates.extrapolated(step.workload):
            notes.append(
                f"{name}: extrapolated: rates were fitted up to {rates.fitted_to_tokens} "
                f"tokens, the context is {step.workload.context_tokens}"
            )
    return notes
