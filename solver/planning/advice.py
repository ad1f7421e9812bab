"""What a plan should tell its reader: idle devices, nothing to gain, and which rule binds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from solver.bounds import lower_bound
from solver.heuristics.contiguous import contiguous
from solver.planning.figures import objective_s
from solver.plans import WholeStep
from solver.problem import PlacementProblem
from solver.request import PlanRequest

LITTLE = 0.01
"""A gain below this share of the makespan is called (almost) nothing."""


def advise(problem: PlacementProblem, request: PlanRequest, lower_bound_s: float) -> list[str]:
    """Sentences for the plan's `warnings`; `problem` is by head."""
    rules = request.placement
    notes = []
    units = problem.heads if rules.unit == "head" else problem.kv_heads
    placed = problem if rules.unit == problem.unit else replace(problem, unit=rules.unit)
    copied = placed.replicas
    if problem.devices > units and not rules.divisible and copied == 1:
        noun = "heads" if rules.unit == "head" else "KV groups"
        idle = problem.devices - units
        notes.append(f"{problem.devices} devices for {units} {noun}: {idle} of them are idle")
    if copied > 1:
        notes.append(
            f"each of {problem.kv_heads} KV groups is on {copied} of {problem.devices} devices, as "
            "engines copy it; which of its heads are on which is what there is to choose"
        )
    elif rules.unit == "kv_group" and problem.identical and problem.devices >= problem.kv_heads:
        notes.append(
            f"unit kv_group leaves no freedom: {problem.kv_heads} KV groups on "
            f"{problem.devices} devices, at most one each however they are placed"
        )
    notes += _nothing_to_gain(placed, request, lower_bound_s)
    if problem.identical and request.objective == "mean":
        notes += _binding_rules(problem, request, lower_bound_s)
    return notes


def slot_notes(
    slots: int,
    makespan_s: float,
    others: Sequence[tuple[int, float]],
    pays_from_tokens: int | None,
) -> list[str]:
    """What is worth saying of a number of slots beside others, each with its makespan."""
    notes = []
    fewer = min(((s, n) for n, s in others if n < slots), default=None)
    if fewer is not None and makespan_s > (1 - LITTLE) * fewer[0]:
        notes.append(
            f"placement.slots: {slots} do not pay: {fewer[1]} take {1e3 * fewer[0]:.3f} ms, "
            f"these {1e3 * makespan_s:.3f} ms and more K/V memory"
        )
    if pays_from_tokens is not None:
        notes.append(f"slots beyond the least pay from {pays_from_tokens:,} tokens of context on")
    return notes


def step_notes(profile: str, whole: WholeStep | None) -> list[str]:
    """That the whole step gains too little, and from which context it would be enough."""
    if whole is None:
        return [
            f"what share of the step attention is, is unknown: profile {profile!r} has no "
            "architecture.mlp_size"
        ]
    if whole.gain >= LITTLE:
        return []
    said = (
        f"not worth it here: attention is {100 * whole.attention_share:.1f} % of the step, and "
        f"this placement {whole.gained} of it over the stock layout"
    )
    if whole.pays_from_tokens is not None:
        return [f"{said}; it would be from about {whole.pays_from_tokens:,} tokens of context on"]
    if whole.tried_to_tokens is not None:
        return [f"{said}; nor is it at any context up to {whole.tried_to_tokens:,} tokens"]
    return [said]


def _nothing_to_gain(
    problem: PlacementProblem, request: PlanRequest, lower_bound_s: float
) -> list[str]:
    layers = [problem.layer(index) for index in range(problem.layers)]
    stock = [layer.whole(contiguous(layer)) for layer in layers]
    stock_s = objective_s(request, problem, problem.loads_of_each([stock] * problem.workloads))
    possible = 1 - lower_bound_s / stock_s
    if possible > LITTLE:
        return []
    return [
        "(almost) nothing to gain: contiguous, which keeps the stock layout, is already within "
        f"{100 * possible:.2f} % of the proven bound under these rules"
    ]


def _binding_rules(
    problem: PlacementProblem, request: PlanRequest, lower_bound_s: float
) -> list[str]:
    """The bound without each rule in turn, against the bound with it."""
    notes = []
    for words, relaxed in _relaxed(problem, request):
        # A cheap bound of the relaxed rules: what is really gained may be less.
        bound_s = sum(lower_bound(relaxed.layer(i)).seconds for i in range(relaxed.layers))
        gain = 1 - bound_s / lower_bound_s
        if gain > LITTLE:
            notes.append(f"{words} would lower the proven bound by up to {100 * gain:.1f} %")
    gain = 1 - _mean_s(problem) / lower_bound_s
    whole = not problem.divisible
    if whole and gain > LITTLE:
        notes.append(
            "indivisible heads bind: placement.divisible would lower the proven bound by up to "
            f"{100 * gain:.1f} %"
        )
    return notes


def _mean_s(problem: PlacementProblem) -> float:
    """All work and one charge a group spread evenly over identical devices, all layers."""
    work = (problem.head_s.sum(axis=(2, 3)) + problem.group_s.sum(axis=(2, 3))) / problem.devices
    return float(problem.weights @ (work + problem.launch_s).sum(axis=1))


def _relaxed(
    problem: PlacementProblem, request: PlanRequest
) -> Iterator[tuple[str, PlacementProblem]]:
    rules = request.placement
    if rules.unit == "kv_group" and problem.heads > problem.kv_heads:
        yield "unit kv_group binds: unit head", problem
    if rules.equal_counts:
        free = replace(problem, unit=rules.unit, equal_counts=False)
        yield "equal_counts binds: free counts", free
