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
from solver.solve import Progress

METHODS = ("contiguous", "snake", "greedy_equal", "greedy", "ilp", "cp_sat", "auto")


@dataclass(frozen=True, eq=False)
class Row:
    """One method's plan, judged against the best bound any method proved for the problem."""

    plan: Plan
    bound_s: float

    @property
    def problem(self) -> str:
        """What the method was given: `8 x disaggregated`."""
        return f"{len(self.plan.devices)} x {self.plan.workload.deployment}"

    @property
    def over_bound(self) -> float:
        return self.plan.makespan_s / self.bound_s

    def to_json(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "gpus": len(plan.devices),
            "deployment": plan.workload.deployment,
            "method": plan.solver,
            "makespan_s": plan.makespan_s,
            "lower_bound_s": self.bound_s,
            "makespan_over_bound": self.over_bound,
            "bubble_ratio": plan.bubble_ratio,
            "imbalance": plan.imbalance,
            "kv_copies": sum(plan.kv_copies),
            "gap": 1 - self.bound_s / plan.makespan_s,
            "solve_s": plan.solve_s,
            "status": plan.status,
            "plan_id": plan.id,
            "warnings": plan.warnings,
        }


def notes(rows: list[Row]) -> list[str]:
    """What the plans warn of, each once; what only some problems have names them."""
    problems = list(dict.fromkeys(row.problem for row in rows))
    said: dict[str, list[str]] = {}
    for row in rows:
        for warning in row.plan.warnings:
            here = said.setdefault(warning, [])
            here += [row.problem] if row.problem not in here else []
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
    """Plan every request; requests of one problem, whatever the method, share their best bound."""
    plans = []
    for request in requests:
        on_plan(request)
        plans.append(make_plan(request, profile, rates, on_progress, cancelled))
    best: dict[tuple[int, str], float] = {}
    for plan in plans:
        key = (len(plan.devices), plan.workload.deployment)
        best[key] = max(best.get(key, 0.0), plan.lower_bound_s)
    return [Row(p, best[len(p.devices), p.workload.deployment]) for p in plans]
