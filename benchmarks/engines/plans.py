"""The placements that are compared, planned with rates that were measured on this machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from executor.node.bench import Bench
from executor.node.shard import layer_shard
from profiles.catalogue import device_profile
from profiles.cost.rates import Rates
from profiles.cost.regression import refit
from profiles.cost.roofline import roofline
from profiles.cost.samples import Sample
from profiles.cost.work import FEATURES
from profiles.model import ModelProfile
from solver.planning.planner import make_plan, plan, request_of
from solver.plans import Plan

RANKS = 2
SLOTS = 2
"""Of each rank: 3 KV groups on 2 ranks fit in no fewer."""
SHARE = 3 / 16
"""Of the context, the mean budget: near a third of dense attention's pairs."""
TIMED_LAYERS = 3
"""Whose shares rates are fitted to, of every kind of budgets."""
DENSE, UNIFORM, ADAPTIVE = "dense", "uniform", "least error"


@dataclass(frozen=True)
class Row:
    """A placement of budgets: `asked` of the planner beside them and the slots."""

    name: str
    budgets: str
    asked: tuple[tuple[str, Any], ...]


CONTIGUOUS = (("method", "contiguous"),)
ROWS = (
    Row("padded contiguous, dense", DENSE, CONTIGUOUS),
    Row("divided, dense", DENSE, (("divisible", True),)),
    Row("padded contiguous, uniform", UNIFORM, CONTIGUOUS),
    Row("padded contiguous", ADAPTIVE, CONTIGUOUS),
    Row("greedy", ADAPTIVE, (("method", "greedy"),)),
    Row("exact", ADAPTIVE, ()),
    Row("divided", ADAPTIVE, (("divisible", True),)),
)
BASE, DIVIDED_DENSE, DIVIDED = ROWS[0].name, ROWS[1].name, ROWS[-1].name


def budget(kind: str, context: int) -> dict[str, Any]:
    """What to ask of budgets: those of the two sparse kinds compute as many pairs."""
    tokens = context if kind == DENSE else round(SHARE * context)
    policy = {"policy": "least_error"} if kind == ADAPTIVE else {"policy": "uniform"}
    return {**policy, "tokens": tokens}


def measured_rates(profile: ModelProfile, context: int, limit_s: float) -> Rates:
    """What attention costs on a core of this machine, timed as executors time it: alone.

    Of contiguous placements of every kind of budgets, each made within `limit_s`, on a few layers,
    with random tensors.
    """
    cpu, bench, samples = device_profile("cpu"), Bench(["cpu"], "torch"), []
    for kind in (DENSE, UNIFORM, ADAPTIVE):
        # Disaggregated: nothing is projected, as nothing is within what the ranks are timed at.
        placed = plan(
            profile,
            gpus=RANKS,
            device_type="cpu",
            context_tokens=context,
            budget=budget(kind, context),
            method="contiguous",
            time_limit_s=limit_s,
        )
        for layer in range(0, len(placed.layers), len(placed.layers) // TIMED_LAYERS):
            for device in range(RANKS):
                shard = layer_shard(placed, device, layer)
                timed = bench.measure(shard, 0, lambda: False)
                assert timed is not None  # Every device has heads.
                work = np.array([timed.work[name] for name in FEATURES])
                samples.append(Sample(work, timed.seconds, context_tokens=context))
    return refit(roofline(cpu, "prefill"), cpu, samples).rates


def plans(
    profile: ModelProfile, context: int, rates: Rates, limit_s: float
) -> Iterator[tuple[Row, Plan]]:
    """Every row's plan, each made within `limit_s`."""
    for row in ROWS:
        request = request_of(
            profile,
            gpus=RANKS,
            device_type="cpu",
            context_tokens=context,
            budget=budget(row.budgets, context),
            slots=SLOTS,
            time_limit_s=limit_s,
            **dict(row.asked),
        )
        yield row, make_plan(request, [{"cpu": rates}])


def attention_s(made: Plan, rates: Rates) -> list[list[float]]:
    """Predicted seconds of attention `[layers][ranks]`: loads without the slots' projections."""
    apart = made.costs.launch_s[0] - rates.seconds_per["launches"]
    return [[load - apart for load in layer.loads_s] for layer in made.layers]
