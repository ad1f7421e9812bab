"""Telling lies: one change to an honest plan, sealed, and what the verifier says of it."""

import copy
from collections.abc import Callable
from typing import Any

from solver.verify import verify
from tests.solver.verify.handmade import Json, sealed

Tamper = Callable[[Json], object]
Lies = dict[str, tuple[Tamper, str]]
"""By name: the change, and words of the fault that names it."""


def told(honest: Json, tamper: Tamper) -> list[str]:
    """The faults found after the change."""
    assert verify(honest) == []
    plan = copy.deepcopy(honest)
    tamper(plan)
    return verify(sealed(plan))


def set_to(value: object, *path: str | int) -> Tamper:
    def change(plan: Json) -> None:
        _parent(plan, path)[path[-1]] = value

    return change


def add(amount: float, *path: str | int) -> Tamper:
    def change(plan: Json) -> None:
        _parent(plan, path)[path[-1]] += amount

    return change


def left_out(*path: str | int) -> Tamper:
    def change(plan: Json) -> None:
        del _parent(plan, path)[path[-1]]

    return change


def _parent(plan: Json, path: tuple[str | int, ...]) -> Any:
    target: Any = plan
    for step in path[:-1]:
        target = target[step]
    return target
