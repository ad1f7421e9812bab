"""What a request says of memory and moving, and what the plan reports of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from solver.coupling.couple import Coupled, couple
from solver.coupling.footprint import Footprint, device_limits
from solver.coupling.moving import CurrentPlacement, current_placement
from solver.coupling.shortage import check_memory
from solver.deadline import Deadline
from solver.planning.costs import slots_of
from solver.planning.figures import objective_s
from solver.planning.scenarios import Scenario
from solver.plans import Memory, Moving, Plan
from solver.problem import PlacementProblem
from solver.request import MemoryOptions, PlanRequest
from solver.search.solve import Search, solve_layers
from solver.shares import Ints, Shares
from solver.solution import Solution

AGAIN = 0.1
"""Of the time limit that one solve with priced bytes may take; several are made."""


@dataclass(frozen=True, eq=False)
class Settled:
    """The layers as they fit together, and what the plan reports of it.

    `memory` takes the heads' shares `[layers]` in whole rows, `moving` the plan's makespan in
    seconds.
    """

    solution: Solution
    memory: Callable[[Sequence[Shares]], Memory | None]
    moving: Callable[[float], Moving | None]


@dataclass(frozen=True, eq=False)
class Coupling:
    """What the layers share: bytes and limits [devices], and where the deployment is now."""

    footprint: Footprint
    limits: Ints | None
    current: CurrentPlacement | None


def coupling(
    request: PlanRequest, steps: Sequence[Scenario], problem: PlacementProblem, current: Plan | None
) -> Coupling | None:
    """What couples the layers, or None; raises where it is plain that nothing can fit."""
    options = request.placement.memory
    if options is None and current is None:
        return None
    footprint = _footprint(request, steps, options or MemoryOptions())
    limits = None
    if options is not None:
        limits = device_limits(request.device_types, options.reserved_share, options.limit_bytes)
        check_memory(problem, footprint, limits)
    held = None if current is None else _held(request, steps, current)
    return Coupling(footprint, limits, held)


def settle(
    request: PlanRequest,
    problem: PlacementProblem,
    solution: Solution,
    current: Plan | None,
    bonds: Coupling | None,
    how: Search,
    deadline: Deadline,
) -> Settled:
    """The solution within the devices' memory, and no further from `current` than pays.

    Raises the memory's and the current plan's own errors (`solver.coupling`).
    """
    if bonds is None:
        return Settled(solution, lambda _: None, lambda _: None)
    quietly = replace(how, on_progress=None)
    coupled = couple(
        problem.weighing(solution.multipliers),
        solution.layers,
        lambda priced: solve_layers(priced, quietly, deadline.within(AGAIN * how.time_limit_s)),
        bonds.footprint,
        bonds.limits,
        bonds.current,
        deadline,
    )
    return Settled(
        replace(solution, layers=coupled.layers),
        lambda shares: _memory(bonds.footprint, bonds.limits, shares),
        lambda makespan_s: _moving(request, problem, current, coupled, makespan_s),
    )


def _footprint(
    request: PlanRequest, steps: Sequence[Scenario], options: MemoryOptions
) -> Footprint:
    """Bytes at the memory options' context and batch, else the largest workload's.

    Each head keeps the most it needs in any workload.
    """
    largest = max((step.workload for step in steps), key=lambda w: w.context_tokens * w.batch_size)
    return Footprint(
        architecture=steps[0].known.profile.architecture,
        deployment=request.deployment,
        budgets=np.max([step.budgets.tokens for step in steps], axis=0),
        context_tokens=options.context_tokens or largest.context_tokens,
        batch_size=options.batch_size or largest.batch_size,
        retention=options.kv_retention,
        piece_tokens=largest.piece_tokens,
        slots=slots_of(request.placement),
    )


def _held(request: PlanRequest, steps: Sequence[Scenario], current: Plan) -> CurrentPlacement:
    architecture = steps[0].known.profile.architecture
    amortise_steps = request.placement.amortise_steps
    return current_placement(current, architecture, request.device_types, amortise_steps)


def _memory(footprint: Footprint, limits: Ints | None, shares: Sequence[Shares]) -> Memory | None:
    if limits is None:
        return None
    kv_bytes = np.sum([footprint.kv_bytes(i, layer) for i, layer in enumerate(shares)], axis=0)
    held_bytes = np.sum([footprint.held_bytes(i, layer) for i, layer in enumerate(shares)], axis=0)
    return Memory(
        kv_retention=footprint.retention,
        context_tokens=footprint.context_tokens,
        batch_size=footprint.batch_size,
        limit_bytes=limits.tolist(),
        weight_bytes=[int(n) for n in held_bytes - kv_bytes],
        kv_bytes=[int(n) for n in kv_bytes],
    )


def _moving(
    request: PlanRequest,
    problem: PlacementProblem,
    current: Plan | None,
    coupled: Coupled,
    makespan_s: float,
) -> Moving | None:
    if current is None:
        return None
    loads = problem.by_head().loads_of_each([current.placed] * problem.workloads)
    current_s = makespan_s if coupled.kept else objective_s(request, problem, loads)
    return Moving(
        current_plan=current.id,
        bytes=int(coupled.moved_bytes),
        seconds=coupled.moving_s,
        amortise_steps=request.placement.amortise_steps,
        current_makespan_s=current_s,
        gain_s=current_s - makespan_s,
        kept=coupled.kept,
    )
