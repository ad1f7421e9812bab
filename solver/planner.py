"""From a request to a plan: budgets, costs, placement, figures, certificate."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from threading import Event

import numpy as np

from profiles.cost.rates import Rates
from profiles.cost.work import Workload
from profiles.model import ModelProfile
from solver import figures
from solver.advice import advise
from solver.budgets.allocate import Budgets, allocate
from solver.costs import placement_problem
from solver.plan import Costs, Entry, LayerPlan, Plan, ProfileRef, Rules, Step
from solver.problem import Floats, Ints, PlacementProblem
from solver.request import PlanRequest
from solver.solve import Progress, Solution, solve


def make_plan(
    request: PlanRequest,
    profile: ModelProfile,
    rates: Mapping[str, Rates],
    on_progress: Callable[[Progress], None] | None = None,
    cancel: Event | None = None,
) -> Plan:
    """Plan `profile` as `request` asks, with `rates` by device type for the request's phase.

    Raises HplbError subclasses for what the profile, the budget policy or the rates cannot give.
    """
    started = time.monotonic()
    types = request.device_types
    budgets = allocate(profile, request.budget, request.workload)
    problem = placement_problem(
        budgets.tokens, profile.architecture, request.workload, types, rates, request.placement
    )
    solution = solve(
        problem, request.method, request.time_limit_s, request.tolerance, on_progress, cancel
    )
    plan = _assemble(request, profile, rates, budgets, problem, solution)
    timing = {"solve_s": time.monotonic() - started, "created_at": datetime.now(UTC).isoformat()}
    return plan.identified().model_copy(update=timing)


def _assemble(
    request: PlanRequest,
    profile: ModelProfile,
    rates: Mapping[str, Rates],
    budgets: Budgets,
    problem: PlacementProblem,
    solution: Solution,
) -> Plan:
    types = request.device_types
    names = list(dict.fromkeys(types))
    layers = [problem.layer(index) for index in range(problem.layers)]
    loads = np.array(
        [layer.loads(s.assignment) for layer, s in zip(layers, solution.layers, strict=True)]
    )
    devices = np.array([problem.devices_of_heads(s.assignment) for s in solution.layers])
    present = figures.presence(devices, problem.kv_heads, problem.devices)
    stock, stock_reason = figures.stock_compatible(present)
    makespan_s = float(loads.max(axis=1).sum())
    bound_s = min(sum(s.bound.seconds for s in solution.layers), makespan_s)
    gap = 1 - bound_s / makespan_s
    identical = bool((problem.type_of == problem.type_of[0]).all())
    return Plan(
        status="optimal" if gap <= request.tolerance else "feasible",
        solver=request.method,
        reason=solution.reason if gap > request.tolerance else None,
        makespan_s=makespan_s,
        lower_bound_s=bound_s,
        gap=gap,
        tolerance=request.tolerance,
        bubble_ratio=figures.bubble_ratio(loads),
        imbalance=figures.imbalance(loads, identical=identical),
        stock_compatible=stock,
        stock_reason=stock_reason,
        kv_copies=figures.kv_copies(present),
        kv_bytes=figures.kv_bytes(present, profile.architecture, request.workload),
        budgets=budgets.tokens.tolist(),
        warnings=[
            *budgets.warnings,
            *_rate_warnings(rates, names, request.workload),
            *advise(problem, bound_s),
        ],
        layers=_layer_plans(solution, devices, loads),
        profile=ProfileRef(
            name=profile.name,
            digest=profile.digest,
            source=profile.source,
            synthetic=profile.synthetic,
        ),
        architecture=profile.architecture,
        workload=Step(
            context_tokens=request.context_tokens,
            phase=request.phase,
            batch_size=request.batch_size,
            deployment=request.deployment,
            block_tokens=request.workload.block_tokens,
        ),
        rules=Rules(unit=request.placement.unit, equal_counts=request.placement.equal_counts),
        devices=types,
        device_types=names,
        cost_model={name: rates[name].version for name in names},
        costs=Costs(
            head_s=problem.head_s.tolist(),
            group_s=problem.group_s.tolist(),
            launch_s=problem.launch_s.tolist(),
        ),
    )


def _layer_plans(solution: Solution, devices: Ints, loads: Floats) -> list[LayerPlan]:
    return [
        LayerPlan(
            makespan_s=float(loads[index].max()),
            lower_bound_s=min(layer.bound.seconds, float(loads[index].max())),
            bound=layer.bound.proof,
            loads_s=loads[index].tolist(),
            heads=[[Entry(device=int(device))] for device in devices[index]],
        )
        for index, layer in enumerate(solution.layers)
    ]


def _rate_warnings(rates: Mapping[str, Rates], names: list[str], workload: Workload) -> list[str]:
    notes = []
    for name in names:
        if not rates[name].measured:
            notes.append(f"{name}: seconds come from its data sheet's roofline; none was measured")
        elif rates[name].extrapolated(workload):
            notes.append(
                f"{name}: extrapolated: rates were fitted up to {rates[name].fitted_to_tokens} "
                f"tokens, the context is {workload.context_tokens}"
            )
    return notes
