"""What is decided: which device computes which attention head, and how good that is proved to be.

    from profiles import load_profile
    from solver import compare, place, plan, verify

    p = plan(load_profile("llama-3.1-8b-synthetic"), gpus=8, context_tokens=131_072, divisible=True)
    p.makespan_s, p.lower_bound_s, p.shares[3]  # seconds, and the fractions [heads, devices]

`plan` goes from a profile to a plan, `place` from nothing but costs to a placement; `compare` sets
every method side by side, and `verify` checks a plan with code that the solvers do not share.

Nothing here is loaded before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solver.placement import place
    from solver.planning.planner import plan
    from solver.plans import Plan
    from solver.report.comparison import compare
    from solver.request import PlanRequest
    from solver.verifier import verify

__all__ = ["Plan", "PlanRequest", "compare", "place", "plan", "verify"]

_HOMES = {
    "Plan": "solver.plans",
    "PlanRequest": "solver.request",
    "compare": "solver.report.comparison",
    "place": "solver.placement",
    "plan": "solver.planning.planner",
    "verify": "solver.verifier",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
