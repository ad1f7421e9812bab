"""The placements that are compared, planned with rates that were measured on this machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from api.demo.generations import expected_makespan
from benchmarks.engines.calibration import PROJECTED, REDUCED, Fitted
from executor.barrier import Barrier
from profiles.cost.rates import Rates
from profiles.model import ModelProfile
from solver.planning.planner import make_plan, plan, request_of
from solver.planning.predict import predicted_loads
from solver.plans import Plan
from solver.request import PlanRequest

RANKS = 2
SLOTS = 2
"""Of each rank: 3 KV groups on 2 ranks fit in no fewer."""
SHARE = 3 / 16
"""Of the context, the mean budget: near a third of dense attention's pairs."""
DENSE, UNIFORM, ADAPTIVE = "dense", "uniform", "least error"


@dataclass(frozen=True)
class Row:
    """A placement of budgets: `asked` of the planner beside them and the slots.

    Not `padded`, each rank loads the heads that it computes instead; its whole step is predicted as
    with the slots.
    """

    name: str
    budgets: str
    asked: tuple[tuple[str, Any], ...]
    padded: bool = True


@dataclass(frozen=True)
class Predicted:
    """A plan's seconds of attention on its ranks, and of the whole step."""

    attention: Barrier
    step_s: float


CONTIGUOUS, DIVISIBLE = (("method", "contiguous"),), (("divisible", True),)
ROWS = (
    Row("padded contiguous, dense", DENSE, CONTIGUOUS),
    Row("divided, dense", DENSE, DIVISIBLE),
    Row("padded contiguous, uniform", UNIFORM, CONTIGUOUS),
    Row("padded contiguous", ADAPTIVE, CONTIGUOUS),
    Row("greedy", ADAPTIVE, (("method", "greedy"),)),
    Row("exact", ADAPTIVE, ()),
    Row("divided", ADAPTIVE, DIVISIBLE),
    Row("divided, without padding", ADAPTIVE, DIVISIBLE, padded=False),
)
BASE, DIVIDED_DENSE, DIVIDED = ROWS[0].name, ROWS[1].name, ROWS[-2].name


def budget(kind: str, context: int) -> dict[str, Any]:
    """What to ask of budgets: those of the two sparse kinds compute as many pairs."""
    if kind == DENSE:
        return {"policy": "dense"}
    policy = "least_error" if kind == ADAPTIVE else "uniform"
    return {"policy": policy, "tokens": round(SHARE * context)}


def probes(profile: ModelProfile, context: int, limit_s: float) -> list[Plan]:
    """What rates are fitted to: every kind of budgets in file order, and the unlike ones divided.

    Each made within `limit_s`, by the data sheet's rates.
    """
    asked = [*((kind, CONTIGUOUS) for kind in (DENSE, UNIFORM, ADAPTIVE)), (ADAPTIVE, DIVISIBLE)]
    return [
        plan(
            profile,
            gpus=RANKS,
            device_type="cpu",
            context_tokens=context,
            budget=budget(kind, context),
            time_limit_s=limit_s,
            **dict(rules),
        )
        for kind, rules in asked
    ]


def plans(
    profile: ModelProfile, context: int, rates: Rates, limit_s: float, rows: Sequence[Row] = ROWS
) -> Iterator[tuple[Row, Plan]]:
    """Every row's plan, each made within `limit_s`."""
    for row in rows:
        yield row, make_plan(request(profile, context, limit_s, row), [{"cpu": rates}])


def request(profile: ModelProfile, context: int, limit_s: float, row: Row) -> PlanRequest:
    """What is asked for a row's plan."""
    return request_of(
        profile,
        gpus=RANKS,
        device_type="cpu",
        context_tokens=context,
        budget=budget(row.budgets, context),
        slots=SLOTS,
        time_limit_s=limit_s,
        **dict(row.asked),
    )


def predicted(made: Plan, planned: Rates, own: Fitted) -> Predicted:
    """What a plan made by the rates `planned` comes to by others.

    Its attention is what its loads are without the slots' projections, at the barrier with the
    waits to expect of rates that are wrong by `own.error`; what is around it goes with the rates of
    products and links. The step is by the wall.
    """
    rates = own.rates.seconds_per
    attention = own.rates.model_copy(update={"seconds_per": rates | {PROJECTED: 0.0}})
    loads = predicted_loads(made, {"cpu": attention})
    slowest_s = expected_makespan(loads, own.error)
    whole = made.whole_step
    assert whole is not None  # The profile has the model's MLP.
    products, links = (rates[name] / planned.seconds_per[name] for name in (PROJECTED, REDUCED))
    around_s = products * (whole.projections_s + whole.mlp_s) + links * whole.all_reduce_s
    step_s = own.wall_per_s * slowest_s + around_s
    return Predicted(Barrier(tuple(loads.sum(axis=0).tolist()), slowest_s), step_s)
