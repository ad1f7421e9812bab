"""From a request to a plan: budgets, costs, placement, what couples the layers, figures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from pydantic import BaseModel

from profiles.catalogue import catalogue_rates, load_profile
from profiles.cost.rates import Rates
from profiles.errors import UnknownNameError
from profiles.model import ModelProfile
from solver.bounds import lower_bound
from solver.budgets.options import BudgetOptions
from solver.deadline import Deadline
from solver.planning.assemble import Draft, assemble
from solver.planning.idle_time import fill
from solver.planning.rounding import finishing_s, rounded, undivided
from solver.planning.scenarios import Known, Scenario, problem_of, scenarios
from solver.planning.settle import Settled, coupling, settle
from solver.planning.slots import Slots, settle_slots, with_slots
from solver.plans import Plan
from solver.problem import PlacementProblem
from solver.request import PlacementOptions, PlanRequest, RequestError
from solver.search.solve import Search, solve
from solver.search.starts import start
from solver.solution import LayerSolution, Progress, Solution

QUICK_S = 0.1
MEMORY_SHARE = 0.4
NODES_SHARE = 0.15
FILL_SHARE = 0.15
BUDGETS_SHARE = 0.3
"""Of the time limit that budget policies may search for."""
MOST_LAST = 0.3
"""Of the time limit that may be kept for rounding, figures and JSON."""


def plan(profile: str | Path | ModelProfile, **fields: Any) -> Plan:
    """Plan for a profile: a catalogue name, a path, or the profile itself; by catalogue rates.

    `fields` are those of the request (`PlanRequest`), and of its `placement` and `budget` by their
    own names: `plan("llama-3.1-8b-synthetic", gpus=8, context_tokens=131_072, divisible=True)`.
    Raises RequestError as the service does, and what `make_plan` raises.
    """
    request = request_of(profile, **fields)
    return make_plan(request, rates_of(request))


def request_of(profile: str | Path | ModelProfile, **fields: Any) -> PlanRequest:
    """A resolved request of `plan`'s keywords; placement's and budget's fields may stand alone."""
    for name, options in (("placement", PlacementOptions), ("budget", BudgetOptions)):
        apart = [key for key in options.model_fields if key in fields]
        given = fields.get(name, {})
        given = given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else given
        # What is no mapping is left to the request's own check.
        if apart and isinstance(given, Mapping):
            fields[name] = {**given, **{key: fields.pop(key) for key in apart}}
    named = profile if isinstance(profile, ModelProfile) else str(profile)
    request = PlanRequest.checked(profile=named, **fields)
    return request.resolved(load_profile, lambda path: Plan.load(Path(path)))


def rates_of(request: PlanRequest) -> list[dict[str, Rates]]:
    """The catalogue's rates for every step, by device type; RequestError for an unknown one."""
    try:
        return [catalogue_rates(request.device_types, step.phase) for step in request.steps]
    except UnknownNameError as error:
        field = "device_type" if request.devices is None else "devices"
        raise RequestError(f"{field}: {error}") from None


def make_plan(
    request: PlanRequest,
    rates: Sequence[Mapping[str, Rates]],
    on_progress: Callable[[Progress], None] | None = None,
    cancel: Event | None = None,
) -> Plan:
    """Plan as a resolved `request` asks; when `cancel` is set, the best plan so far.

    `rates` of every step, by device type. Raises HplbError subclasses for what the profile, the
    budget policy, the rates or the devices' memory cannot give.
    """
    began = time.monotonic()
    request = request.settled()
    stop = cancel or Event()
    budgets_by = Deadline(began + BUDGETS_SHARE * request.time_limit_s, stop)
    known = [Known(profile, own) for profile, own in zip(request.profiles, rates, strict=True)]
    current = request.current_plan
    steps = scenarios(request, known, budgets_by)
    how = Search(
        method=request.method,
        tolerance=request.tolerance,
        time_limit_s=request.time_limit_s,
        objective=request.objective,
        node_size=request.placement.node_size,
        seed=request.seed,
        on_progress=on_progress,
        cancelled=stop,
    )
    slots = settle_slots(request, steps, how)
    if slots is not None:
        request = with_slots(request, slots.number)
    problem = problem_of(request, steps)
    bonds = coupling(request, steps, problem, current)
    last_s = min(finishing_s(problem), MOST_LAST * request.time_limit_s)
    end = Deadline(began + request.time_limit_s - last_s, stop)
    left_s = end.left_s - _later(request) * request.time_limit_s
    how = replace(how, time_limit_s=max(left_s, 0.0))
    solution = solve(problem, how)
    settled = settle(request, problem, solution, current, bonds, how, end)
    limit = Deadline(began + request.time_limit_s, stop)
    made = assemble(_draft(request, steps, problem, slots, settled, end), limit)
    timing = {"solve_s": time.monotonic() - began, "created_at": datetime.now(UTC).isoformat()}
    return made.identified().model_copy(update=timing)


def _later(request: PlanRequest) -> float:
    """Of the time limit, what comes after the search: memory, a node's own plan, filling."""
    rules = request.placement
    return (
        (rules.memory is not None) * MEMORY_SHARE
        + (rules.node_size is not None) * NODES_SHARE
        + request.budget.fill * FILL_SHARE
    )


def _draft(
    request: PlanRequest,
    steps: list[Scenario],
    problem: PlacementProblem,
    slots: Slots | None,
    settled: Settled,
    end: Deadline,
) -> Draft:
    """Shares in whole query blocks, and what idles filled where asked for."""
    solution = settled.solution
    shares = [problem.shares_of_heads(layer.shares) for layer in solution.layers]
    by_head = problem.by_head().weighing(solution.multipliers)
    realised = [shares] * len(steps)
    if problem.divisible:
        rules = request.placement
        uncoupled = rules.memory is None and rules.current_plan is None
        realised = rounded(by_head, solution.layers, steps, end, may_undo=uncoupled)
        if uncoupled and request.objective == "worst":
            whole = solution.layers
            if not end.cancelled.is_set():  # who cancels waits for this
                whole = start(
                    [by_head.layer(i) for i in range(by_head.layers)],
                    "auto",
                    request.tolerance,
                    Deadline(time.monotonic() + QUICK_S, end.cancelled),
                )
            realised = undivided(by_head, realised, [layer.assignment for layer in whole])
    filled = None
    if request.budget.fill:
        filled, steps = fill(request, by_head, realised[0], steps)
        larger = problem_of(request, steps)
        solution = _bounded_anew(problem, larger, solution)
        by_head = larger.by_head()
    return Draft(
        request=request,
        steps=steps,
        problem=by_head,
        solution=solution,
        shares=realised,
        slots=slots,
        settled=settled,
        filled=filled,
        cancelled=end.cancelled.is_set(),
    )


def _bounded_anew(
    before: PlacementProblem, problem: PlacementProblem, solution: Solution
) -> Solution:
    """The same shares under the costs of larger budgets, which need their own proof."""
    layers = []
    for index, placed in enumerate(solution.layers):
        layer = problem.layer(index)
        bound = lower_bound(layer)
        makespan_s = layer.objective(layer.loads_of_shares(placed.shares))
        # What was proved before holds where costs only grew: not where a head now attends to all
        # and chooses nothing.
        if _only_grew(before, problem, index) and placed.bound.seconds > bound.seconds:
            bound = placed.bound
        layers.append(LayerSolution(placed.shares, makespan_s, bound, placed.searched))
    bound_s = float(sum(layer.bound.seconds for layer in layers))
    return Solution(layers, bound_s, solution.multipliers, solution.reason)


def _only_grew(before: PlacementProblem, after: PlacementProblem, layer: int) -> bool:
    pairs = ((before.head_s, after.head_s), (before.group_s, after.group_s))
    return all((new[:, layer] >= old[:, layer]).all() for old, new in pairs)
