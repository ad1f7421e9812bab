"""What a plan should tell its reader: idle devices, nothing to gain, and which rule binds."""

from dataclasses import replace

import numpy as np

from solver.bounds import lower_bound
from solver.placement.contiguous import contiguous
from solver.problem import PlacementProblem

LITTLE = 0.01
"""A gain below this share of the makespan is called (almost) nothing."""


def advise(problem: PlacementProblem, lower_bound_s: float) -> list[str]:
    """Sentences for the plan's `warnings`."""
    notes = []
    units = problem.heads if problem.unit == "head" else problem.kv_heads
    if problem.devices > units:
        noun = "heads" if problem.unit == "head" else "KV groups"
        idle = problem.devices - units
        notes.append(f"{problem.devices} devices for {units} {noun}: {idle} of them are idle")
    notes += _nothing_to_gain(problem, lower_bound_s)
    notes += _binding_rule(problem, lower_bound_s)
    return notes


def _nothing_to_gain(problem: PlacementProblem, lower_bound_s: float) -> list[str]:
    layers = [problem.layer(index) for index in range(problem.layers)]
    stock_s = sum(layer.makespan(contiguous(layer)) for layer in layers)
    possible = 1 - lower_bound_s / stock_s
    if possible > LITTLE:
        return []
    return [
        "(almost) nothing to gain: contiguous, which keeps the stock layout, is already within "
        f"{100 * possible:.2f} % of the proven bound under these rules"
    ]


def _binding_rule(problem: PlacementProblem, lower_bound_s: float) -> list[str]:
    """The bound without each rule in turn, against the bound with it."""
    relaxed: list[tuple[str, PlacementProblem]] = []
    if problem.unit == "kv_group" and problem.heads > problem.kv_heads:
        relaxed.append(("unit kv_group binds: unit head", replace(problem, unit="head")))
    if problem.equal_counts:
        relaxed.append(("equal_counts binds: free counts", replace(problem, equal_counts=False)))
    notes = []
    for words, other in relaxed:
        if not bool(np.all(other.type_of == other.type_of[0])):
            continue  # the relaxation's bound costs a program per layer there
        bound_s = sum(lower_bound(other.layer(i)).seconds for i in range(other.layers))
        gain = 1 - bound_s / lower_bound_s
        if gain > LITTLE:
            notes.append(f"{words} would lower the proven bound by {100 * gain:.1f} %")
    return notes
