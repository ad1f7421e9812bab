"""From a request to a plan: budgets, costs, placement, what couples the layers, figures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event

import numpy as np

from profiles.cost.rates import Rates
from profiles.model import ModelProfile
from solver.assemble import Draft, assemble
from solver.bounds import lower_bound
from solver.costs import placement_problem
from solver.filling import fill
from solver.placement.exact import Deadline
from solver.plan import Plan
from solver.problem import PlacementProblem
from solver.request import PlanRequest
from solver.rounding import rounded, undivided
from solver.scenarios import Known, Scenario, scenarios
from solver.settle import Settled, coupling, settle
from solver.solution import LayerSolution, Progress, Solution
from solver.solve import Search, solve
from solver.start import start

__all__ = ["Known", "make_plan"]

QUICK_S = 0.1
MEMORY_SHARE = 0.4
NODES_SHARE = 0.15
FILL_SHARE = 0.15
BUDGETS_SHARE = 0.3
"""Of the time limit that budget policies may search for."""


def make_plan(
    request: PlanRequest,
    profile: ModelProfile,
    rates: Mapping[str, Rates],
    on_progress: Callable[[Progress], None] | None = None,
    cancel: Event | None = None,
    *,
    others: Sequence[Known] = (),
    current: Plan | None = None,
) -> Plan:
    """Plan as `request` asks; when `cancel` is set, the best plan so far.

    `profile` and `rates` (by device type) belong to the request's first workload, `others` to the
    further ones; `current` is `placement.current_plan` looked up. Raises HplbError subclasses for
    what the profile, the budget policy, the rates or the devices' memory cannot give.
    """
    began = time.monotonic()
    stop = cancel or Event()
    budgets_by = Deadline(began + BUDGETS_SHARE * request.time_limit_s, stop)
    steps = scenarios(request, [Known(profile, rates), *others], budgets_by)
    problem = _problem(request, steps)
    bonds = coupling(request, steps, problem, current)
    how = Search(
        method=request.method,
        tolerance=request.tolerance,
        time_limit_s=max(_solving_s(request) - (time.monotonic() - began), 0.0),
        objective=request.objective,
        node_size=request.placement.node_size,
        seed=request.seed,
        on_progress=on_progress,
        cancelled=stop,
    )
    solution = solve(problem, how)
    end = Deadline(began + request.time_limit_s, stop)
    settled = settle(request, problem, solution, current, bonds, how, end)
    plan = assemble(_draft(request, steps, problem, settled, end))
    timing = {"solve_s": time.monotonic() - began, "created_at": datetime.now(UTC).isoformat()}
    return plan.identified().model_copy(update=timing)


def _solving_s(request: PlanRequest) -> float:
    """Seconds for the search: memory, a node's own plan and filling need some of the limit too."""
    rules = request.placement
    later = (
        (rules.memory is not None) * MEMORY_SHARE
        + (rules.node_size is not None) * NODES_SHARE
        + request.budget.fill * FILL_SHARE
    )
    return (1 - later) * request.time_limit_s


def _problem(request: PlanRequest, steps: Sequence[Scenario]) -> PlacementProblem:
    return placement_problem(
        [step.demand for step in steps],
        steps[0].known.profile.architecture,
        request.device_types,
        request.placement,
    )


def _draft(
    request: PlanRequest,
    steps: list[Scenario],
    problem: PlacementProblem,
    settled: Settled,
    end: Deadline,
) -> Draft:
    """Shares in whole query blocks, and what idles filled where asked for."""
    solution = settled.solution
    shares = np.stack([problem.shares_of_heads(layer.shares) for layer in solution.layers])
    by_head = replace(problem, unit="head").weighing(solution.multipliers)
    realised = shares[None]
    if problem.divisible:
        rules = request.placement
        uncoupled = rules.memory is None and rules.current_plan is None
        realised = rounded(by_head, solution.layers, steps, end, may_undo=uncoupled)
        if uncoupled and request.objective == "worst":
            quick = start(
                [by_head.layer(i) for i in range(by_head.layers)],
                "auto",
                request.tolerance,
                Deadline(time.monotonic() + QUICK_S, end.cancelled),
            )
            realised = undivided(by_head, realised, [layer.assignment for layer in quick])
    filled = None
    if request.budget.fill:
        filled, steps = fill(request, by_head, realised[0], steps)
        larger = _problem(request, steps)
        solution = _bounded_anew(problem, larger, solution)
        by_head = replace(larger, unit="head")
    return Draft(
        request=request,
        steps=steps,
        problem=by_head,
        solution=solution,
        shares=np.broadcast_to(realised, (len(steps), *shares.shape)),
        settled=settled,
        filled=filled,
        cancelled=end.cancelled,
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
