"""Telling lies: one change to an honest plan, sealed, and what the verifier says of it."""

import copy
import math
from collections.abc import Callable
from typing import Any

from solver.verifier import verify
from tests.solver.verifier.handmade import Json, sealed

Tamper = Callable[[Json], object]
Lies = dict[str, tuple[Tamper, str]]
"""By name: the change, and words of the fault that names it."""


def told(honest: Json, tamper: Tamper) -> list[str]:
    """The faults found after the change."""
    assert verify(honest).faults == []
    plan = copy.deepcopy(honest)
    tamper(plan)
    return verify(sealed(plan)).faults


def claiming_optimal(plan: Json) -> Json:
    """A plan whose bounds are all raised to the makespans, with the id of that content."""
    forged = copy.deepcopy(plan)
    for layer in forged["layers"]:
        layer["lower_bound_s"], layer["bound"] = layer["makespan_s"], "configuration program"
    bound_s = math.fsum(layer["lower_bound_s"] for layer in forged["layers"])
    forged["lower_bound_s"] = min(bound_s, forged["makespan_s"])
    forged["gap"] = max(0.0, 1 - forged["lower_bound_s"] / forged["makespan_s"])
    forged["status"], forged["reason"] = "optimal", None
    return sealed(forged)


def set_to(value: object, *path: str | int) -> Tamper:
    def change(plan: Json) -> None:
        parent(plan, path)[path[-1]] = value

    return change


def add(amount: float, *path: str | int) -> Tamper:
    def change(plan: Json) -> None:
        parent(plan, path)[path[-1]] += amount

    return change


def left_out(*path: str | int) -> Tamper:
    def change(plan: Json) -> None:
        del parent(plan, path)[path[-1]]

    return change


def parent(plan: Json, path: tuple[str | int, ...]) -> Any:
    """What holds the value at a path."""
    target: Any = plan
    for step in path[:-1]:
        target = target[step]
    return target
