"""Every method on the same problem, side by side: what `hplb compare` prints, plots and dumps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from threading import Event
from typing import Any

from profiles.catalogue import load_profile
from profiles.model import ModelProfile
from solver.plans import Plan
from solver.report.naming import heading, method_of, problem_of
from solver.report.picture import comparison_picture
from solver.request import PlanRequest, RequestError
from solver.solution import Progress

METHODS = ("contiguous", "snake", "greedy_equal", "greedy", "ilp", "cp_sat", "auto", "divided")
"""Ways to place; `divided` is `auto` with heads that several devices may share."""

DEPLOYMENTS = ("disaggregated", "tensor_parallel")
DEFAULT_CONTEXT = 131_072
COLUMNS = ("problem", "method", "ms", "/ bound", "bubble %", "copies", "gap %", "solve s")


def rules_of(method: str, unit: str, equal_counts: bool, slots: int | str | None) -> dict[str, Any]:
    """Placement rules of one method's request: divided heads obey neither unit nor counts."""
    if method == "divided":
        return {"divisible": True, "slots": slots}
    return {"unit": unit, "equal_counts": equal_counts, "slots": slots}


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


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every method's plan of every problem; prints as a table, and draws itself in a notebook."""

    rows: list[Row]

    def __str__(self) -> str:
        lines = [self.title, *_columns([COLUMNS, *(cells(row) for row in self.rows)])]
        return "\n".join([*lines, *(f"note: {note}" for note in notes(self.rows))])

    __repr__ = __str__

    @property
    def title(self) -> str:
        """What was compared: profile, workload and device types."""
        return heading(self.rows[0].plan)

    def picture(self) -> str:
        """The methods' devices, busy and idle, beside each other, as SVG."""
        return comparison_picture(self.title, by_problem(self.rows))

    def _repr_html_(self) -> str:
        """The table and the picture."""
        head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
        body = []
        for row in self.rows:
            told = "".join(f"<td>{escape(cell)}</td>" for cell in cells(row))
            body.append(f"<tr>{told}</tr>")
        said = "".join(f"<li>{escape(note)}</li>" for note in notes(self.rows))
        return (
            f"<p>{escape(self.title)}</p><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(body)}</tbody></table><ul>{said}</ul>{self.picture()}"
        )


def cells(row: Row) -> tuple[str, ...]:
    """A row in words, as `COLUMNS` names them."""
    plan = row.plan
    return (
        problem_of(plan),
        method_of(plan),
        f"{1e3 * plan.makespan_s:.3f}",
        f"{row.over_bound:.4f}",
        f"{100 * plan.bubble_ratio:.2f}",
        f"{sum(plan.kv_copies)}",
        f"{100 * (1 - row.bound_s / plan.makespan_s):.2f}",
        f"{plan.solve_s:.2f}",
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, the first two columns to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def compare(
    profile: str | Path | ModelProfile,
    *,
    gpus: Sequence[int] = (2, 4, 8),
    deployments: Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    **fields: Any,
) -> Comparison:
    """Plan a profile by every method, over device counts and deployments; predicted seconds.

    `fields` are as in `plan`; the context is 131,072 tokens unless given, and deployments are both,
    or with `slots` tensor_parallel alone. Raises RequestError.
    """
    fields = {"context_tokens": DEFAULT_CONTEXT, **fields}
    requests = comparison_requests(profile, gpus, deployments, methods, **fields)
    return compare_plans(requests, lambda _: None, lambda _: None)


def comparison_requests(
    profile: str | Path | ModelProfile,
    gpus: Sequence[int],
    deployments: Sequence[str] | None,
    methods: Sequence[str],
    *,
    unit: str = "head",
    equal_counts: bool = False,
    slots: int | str | None = None,
    **fields: Any,
) -> list[PlanRequest]:
    """A resolved request for every count, deployment and method."""
    if deployments is None:
        deployments = DEPLOYMENTS if slots is None else DEPLOYMENTS[1:]
    from solver.planning.planner import request_of  # slow to import: SciPy's solvers

    loaded = load_profile(str(profile)) if isinstance(profile, str | Path) else profile
    return [
        request_of(
            loaded,
            gpus=count,
            deployment=deployment,
            method="auto" if method == "divided" else method,
            **rules_of(method, unit, equal_counts, slots),
            **fields,
        )
        for count in gpus
        for deployment in deployments
        for method in methods
    ]


def compare_plans(
    requests: list[PlanRequest],
    on_plan: Callable[[PlanRequest], None],
    on_progress: Callable[[Progress], None],
    cancelled: Event | None = None,
) -> Comparison:
    """Plan every request; requests of one problem, whatever the method, share their best bound.

    What holds of divided heads holds of whole ones, not the other way round.
    """
    from solver.planning.planner import make_plan, rates_of

    plans = []
    for request in requests:
        on_plan(request)
        plans.append(make_plan(request, rates_of(request), on_progress, cancelled))
    return beside(plans)


def beside(plans: Sequence[Plan]) -> Comparison:
    """Plans made already, side by side.

    Raises RequestError where they are not of one profile, workload and budgets: bounds of one then
    say nothing of the other.
    """
    for plan in plans[1:]:
        for what, of in _GIVEN.items():
            if of(plan) != of(plans[0]):
                raise RequestError(
                    f"plan: {plan.id} has other {what} than {plans[0].id}: they do not compare"
                )
    return Comparison([Row(plan, _best_bound(plan, plans)) for plan in plans])


_GIVEN: dict[str, Callable[[Plan], object]] = {
    "architecture": lambda plan: plan.architecture,
    "profile": lambda plan: plan.profile.digest,
    "context, phase, batch or sizes": lambda plan: plan.workload.model_copy(
        update={"deployment": DEPLOYMENTS[0]}
    ),
    "budgets": lambda plan: plan.budgets,
    "workloads": lambda plan: [other.workload for other in plan.other_workloads],
}
"""What plans share that compare, by name."""


def _best_bound(plan: Plan, plans: Sequence[Plan]) -> float:
    return max(
        other.lower_bound_s
        for other in plans
        if problem_of(other) == problem_of(plan)
        and other.slots == plan.slots
        and (other.rules.divisible or not plan.rules.divisible)
    )
