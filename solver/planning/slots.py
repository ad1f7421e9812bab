"""How many KV slots a device gets: as few as hold every KV group, and more while that pays.

A slot more gives a placement freedom and costs every device a group's projections and K/V memory,
whatever is in it. So numbers are tried from the least on, each for a part of the time, until one
does not pay; and the pair of numbers that it turned on is tried at other contexts.
"""

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from profiles.errors import HplbError
from solver.bounds import lower_bound
from solver.coupling.shortage import MemoryShortageError
from solver.deadline import Deadline
from solver.planning.figures import Present, objective_s
from solver.planning.scenarios import Scenario, problem_of, scenarios
from solver.planning.settle import coupling
from solver.plans import OtherSlots, Padding
from solver.problem import PlacementProblem
from solver.request import PlanRequest, RequestError
from solver.search.divided import quick_makespan_s
from solver.search.solve import Search, solve

WORTH = 0.01
"""A slot more is worth its K/V memory where it saves at least this part of the makespan."""

TRY_SHARE = 0.12
"""Of the time limit, for one number tried."""

TRIES_SHARE = 0.4
"""Of the time limit, for all of them."""

CONTEXTS = tuple(2**exponent for exponent in range(10, 21))
"""Tried in turn for the shortest at which more slots pay: 1,024 to 1,048,576 tokens."""

CONTEXTS_SHARE = 0.15
"""Of the time limit, for all of these."""


@dataclass(frozen=True)
class Slots:
    """The number settled, the least that holds every KV group, and what was tried beside it."""

    number: int
    least: int
    others: list[OtherSlots] = field(default_factory=list)
    pays_from_tokens: int | None = None


def with_slots(request: PlanRequest, number: int) -> PlanRequest:
    """The same request with so many slots."""
    placement = request.placement.model_copy(update={"slots": number})
    return request.model_copy(update={"placement": placement})


def settle_slots(request: PlanRequest, steps: Sequence[Scenario], how: Search) -> Slots | None:
    """The slots of a request that asks for them, `auto` or a number; None where it does not.

    Raises RequestError for a number that cannot hold every KV group or is beyond their number.
    """
    asked = request.placement.slots
    if asked is None:
        return None
    groups, devices = steps[0].known.profile.architecture.kv_heads, len(request.device_types)
    least = -(-groups // devices)
    if asked != "auto" and not least <= asked <= groups:
        raise RequestError(
            f"placement.slots: {asked}, must be from {least} to {groups}: {groups} KV groups of a "
            f"layer on {devices} devices"
        )
    limit_s = request.time_limit_s
    end = Deadline(time.monotonic() + TRIES_SHARE * limit_s, how.cancelled)
    quick = replace(how, on_progress=None, time_limit_s=TRY_SHARE * limit_s)
    # A number asked for is told beside the least.
    numbers = range(least, groups + 1) if asked == "auto" else range(least, min(asked, least + 1))
    found: dict[int, float] = {}
    for number in numbers:
        problem = problem_of(with_slots(request, number), steps)
        best_s = min(found.values(), default=np.inf)
        if found and (end.left_s <= 0 or not _may_pay(request, steps, problem, number, best_s)):
            break
        found[number] = _makespan_s(request, problem, quick)
        if found[number] > (1 - WORTH) * best_s:
            break
    chosen = _chosen(found) if asked == "auto" else asked
    others = [OtherSlots(slots=n, makespan_s=s) for n, s in found.items() if n != chosen]
    more = max(chosen, least + 1)
    pays_from = None
    if least < groups and request.workloads is None and not how.cancelled.is_set():
        until = Deadline(time.monotonic() + CONTEXTS_SHARE * limit_s, how.cancelled)
        pays_from = _pays_from(request, steps, (least, more), until)
    return Slots(chosen, least, others, pays_from)


def _chosen(found: dict[int, float]) -> int:
    """The last number that paid for itself."""
    best = min(found)
    for number, seconds in found.items():
        if seconds <= (1 - WORTH) * found[best]:
            best = number
    return best


def padding(slots: Slots, present: Sequence[Present], padding_s: float) -> Padding:
    """The report of a plan whose KV groups are `present` [layers]."""
    return Padding(
        least_slots=slots.least,
        padded=sum(own.devices * slots.number - len(own.device) for own in present),
        padding_s=padding_s,
        kv_share=slots.least / slots.number,
        others=slots.others,
        pays_from_tokens=slots.pays_from_tokens,
    )


def _may_pay(
    request: PlanRequest,
    steps: Sequence[Scenario],
    problem: PlacementProblem,
    number: int,
    best_s: float,
) -> bool:
    """Whether that many slots fit in memory, and could save what one is worth."""
    bound_s = sum(lower_bound(problem.layer(i)).seconds for i in range(problem.layers))
    if request.objective == "mean" and bound_s > (1 - WORTH) * best_s:
        return False
    try:
        coupling(with_slots(request, number), steps, problem, None)
    except MemoryShortageError:
        return False
    return True


def _makespan_s(request: PlanRequest, problem: PlacementProblem, how: Search) -> float:
    shares = [layer.shares for layer in solve(problem, how).layers]
    loads = problem.loads_of_each([shares] * problem.workloads)
    return objective_s(request, problem, loads)


def _pays_from(
    request: PlanRequest, steps: Sequence[Scenario], numbers: tuple[int, int], until: Deadline
) -> int | None:
    """The shortest of the contexts at which the larger number is worth it; None at none.

    Taken to go on paying from there on; by quick starts, which a search would improve on both
    sides.
    """
    known = [step.known for step in steps]

    def pays(context: int) -> bool:
        there = request.model_copy(update={"context_tokens": context})
        there_steps = scenarios(there, known, until)
        few, more = (
            _quick_s(there, problem_of(with_slots(there, n), there_steps), until) for n in numbers
        )
        return more <= (1 - WORTH) * few

    try:
        first = bisect_left(CONTEXTS, True, key=pays)
    except HplbError:
        # What a policy cannot give at another context, or there was no time for.
        return None
    return CONTEXTS[first] if first < len(CONTEXTS) else None


def _quick_s(request: PlanRequest, problem: PlacementProblem, until: Deadline) -> float:
    """The makespan that needs no search; HplbError where there was no time for it."""
    layers = [problem.layer(index) for index in range(problem.layers)]
    found_s = quick_makespan_s(layers, request.method, request.tolerance, until)
    if until.left_s <= 0:
        raise HplbError("out of time")
    return found_s
