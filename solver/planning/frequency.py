"""How often an engine's workloads come, from how long its plan took for them.

An engine tells shares of time, a plan weighs workloads by how often they come.
"""

from collections.abc import Sequence
from dataclasses import replace

from profiles.cost.rates import RatesOf
from profiles.cost.work import Workload
from profiles.traffic import StepClass
from solver.planning.predict import predicted_loads
from solver.plans import Plan


def frequencies(live: Plan, traffic: Sequence[StepClass], rates: RatesOf) -> list[float]:
    """Steps of each class in a second of attention under the `live` plan, which met them."""
    return [
        each.share
        / float(predicted_loads(live, rates[each.phase], met(live, each)).max(axis=1).sum())
        for each in traffic
    ]


def met(live: Plan, each: StepClass) -> Workload:
    """The workload that the plan met in a class's steps: its own, but for phase and size."""
    return replace(
        live.workload.workload,
        context_tokens=each.context_tokens,
        phase=each.phase,
        batch_size=each.batch_size,
    )
