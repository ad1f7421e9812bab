"""Every method on the same problem, side by side: what `hplb compare` prints, plots and dumps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any

from profiles.cost.rates import Rates
from profiles.model import ModelProfile
from solver.plan import Plan
from solver.planner import make_plan
from solver.request import PlanRequest
from solver.solution import Progress

METHODS = ("contiguous", "snake", "greedy_equal", "greedy", "ilp", "cp_sat", "auto", "divided")
"""Ways to place; `divided` is `auto` with heads that several devices may share."""


def rules_of(method: str, unit: str, equal_counts: bool) -> dict[str, Any]:
    """Placement rules of one method's request: divided heads obey neither unit nor counts."""
    if method == "divided":
        return {"divisible": True}
    return {"unit": unit, "equal_counts": equal_counts}


def method_of(plan: Plan) -> str:
    """How a plan was made, as `METHODS` names it."""
    return "divided" if plan.rules.divisible else plan.solver


def problem_of(plan: Plan) -> str:
    """What a method was given, within one comparison: `8 x disaggregated`."""
    return f"{len(plan.devices)} x {plan.workload.deployment}"


@dataclass(frozen=True, eq=False)
class Row:
    """One method's plan, judged against the best bound any method proved for the problem."""

    plan: Plan
    bound_s: float

    @property
    def over_bound(self) -> float:
        return self.plan.makespan_s / self.bound_s

    def to_json(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "gpus": len(plan.devices),
            "deployment": plan.workload.deployment,
            "method": method_of(plan),
            "makespan_s": plan.makespan_s,
            "lower_bound_s": self.bound_s,
            "makespan_over_bound": self.over_bound,
            "bubble_ratio": plan.bubble_ratio,
            "imbalance": plan.imbalance,
            "kv_copies": sum(plan.kv_copies),
            "divisions": sum(plan.divisions),
            "gap": 1 - self.bound_s / plan.makespan_s,
            "solve_s": plan.solve_s,
            "status": plan.status,
            "recovery": None if plan.recovery is None else plan.recovery.model_dump(),
            "plan_id": plan.id,
            "warnings": plan.warnings,
        }


def by_problem(rows: list[Row]) -> dict[str, list[Row]]:
    """The methods' rows of each problem, in the order they came."""
    problems: dict[str, list[Row]] = {}
    for row in rows:
        problems.setdefault(problem_of(row.plan), []).append(row)
    return problems


def notes(rows: list[Row]) -> list[str]:
    """What the plans warn of, each once; what only some problems have names them."""
    problems = by_problem(rows)
    said: dict[str, list[str]] = {}
    for problem, members in problems.items():
        for warning in dict.fromkeys(w for row in members for w in row.plan.warnings):
            said.setdefault(warning, []).append(problem)
    return [
        warning if len(where) == len(problems) else f"{', '.join(where)}: {warning}"
        for warning, where in said.items()
    ]


def compare(
    requests: list[PlanRequest],
    profile: ModelProfile,
    rates: Mapping[str, Rates],
    on_plan: Callable[[PlanRequest], None],
    on_progress: Callable[[Progress], None],
    cancelled: Event | None = None,
) -> list[Row]:
    """Plan every request; requests of one problem, whatever the method, share their best bound.

    What holds of divided heads holds of whole ones, not the other way round.
    """
    plans = []
    for request in requests:
        on_plan(request)
        plans.append(make_plan(request, profile, rates, on_progress, cancelled))
    return [Row(plan, _best_bound(plan, plans)) for plan in plans]


def _best_bound(plan: Plan, plans: list[Plan]) -> float:
    return max(
        other.lower_bound_s
        for other in plans
        if problem_of(other) == problem_of(plan)
        and (other.rules.divisible or not plan.rules.divisible)
    )
