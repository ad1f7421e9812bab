"""The placements that are compared, planned with rates that were measured on this machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from executor.barrier import Barrier
from executor.node.bench import Bench
from executor.node.shard import layer_shard
from profiles.catalogue import device_profile
from profiles.cost.rates import Rates
from profiles.cost.regression import refit
from profiles.cost.roofline import roofline
from profiles.cost.samples import Sample
from profiles.cost.work import FEATURES, INDEX, Deployment
from profiles.model import ModelProfile
from solver.planning.planner import make_plan, plan, request_of
from solver.plans import Plan

RANKS = 2
SLOTS = 2
"""Of each rank: 3 KV groups on 2 ranks fit in no fewer."""
SHARE = 3 / 16
"""Of the context, the mean budget: near a third of dense attention's pairs."""
TIMED_TOKENS = 3 * 8192
"""In all layers whose shares rates are fitted to, of every kind of budgets."""
PROJECTED = "projection_flops"
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


def measured_rates(profile: ModelProfile, context: int, limit_s: float) -> Rates:
    """What attention and projections cost on a core of this machine, timed as executors do: alone.

    Of contiguous placements of every kind of budgets, each made within `limit_s`, on some layers,
    with random tensors. Attention's rates are fitted to attention alone, as the ranks' is timed,
    and projections get what is left of layers with both: they grow with the heads as attention
    does, so that one fit could not tell them apart.
    """
    cpu, bench = device_profile("cpu"), Bench(["cpu"], "torch")

    def timed(kind: str, deployment: Deployment) -> list[Sample]:
        asked = {"budget": budget(kind, context), "deployment": deployment, "time_limit_s": limit_s}
        placed = plan(
            profile,
            gpus=RANKS,
            device_type="cpu",
            context_tokens=context,
            method="contiguous",
            **asked,
        )
        found, layers = [], len(placed.layers)
        for layer in range(0, layers, max(1, layers * context // TIMED_TOKENS)):
            for device in range(RANKS):
                sample = bench.measure(layer_shard(placed, device, layer), 0, lambda: False)
                assert sample is not None  # Every device has heads.
                work = np.array([sample.work[name] for name in FEATURES])
                found.append(Sample(work, sample.seconds, context_tokens=context))
        return found

    kinds = (DENSE, UNIFORM, ADAPTIVE)
    attention = [sample for kind in kinds for sample in timed(kind, "disaggregated")]
    rates = refit(roofline(cpu, "prefill"), cpu, attention).rates
    alone = rates.model_copy(update={"seconds_per": rates.seconds_per | {PROJECTED: 0.0}})
    left = median(
        (sample.seconds - float(alone.seconds(sample.work))) / sample.work[INDEX[PROJECTED]]
        for sample in timed(DENSE, "tensor_parallel")
    )
    return rates.model_copy(update={"seconds_per": rates.seconds_per | {PROJECTED: max(left, 0.0)}})


def plans(
    profile: ModelProfile, context: int, rates: Rates, limit_s: float, rows: Sequence[Row] = ROWS
) -> Iterator[tuple[Row, Plan]]:
    """Every row's plan, each made within `limit_s`."""
    for row in rows:
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


def predicted(made: Plan, rates: Rates) -> Predicted:
    """What a plan says; of its loads, what is not the slots' projections."""
    apart = made.costs.launch_s[0] - rates.seconds_per["launches"]
    layers = [[load - apart for load in layer.loads_s] for layer in made.layers]
    assert made.whole_step is not None  # The profile has the model's MLP.
    return Predicted(Barrier.of(layers), made.whole_step.step_s)
