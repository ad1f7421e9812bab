"""What was measured of a live plan, beside what was predicted of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solver.planning.figures import bubble_ratio
from solver.planning.predict import planned_problem
from solver.plans import Plan
from solver.problem import Floats

DRIFT_LIMITS = (0.1, 10.0)


@dataclass(frozen=True, eq=False)
class RoundMedians:
    """Medians over the complete rounds of one generation.

    loads_s [layers, devices] seconds, NaN where nothing was measured.
    """

    rounds: int
    loads_s: Floats
    makespan_s: float
    bubble_ratio: float


@dataclass(frozen=True)
class Prediction:
    """The plan's own figures over the layers that are run."""

    makespan_s: float
    bubble_ratio: float


def planned_loads(plan: Plan) -> Floats:
    """Predicted seconds of the workload that is run, the plan's first, [layers, devices]."""
    if not plan.other_workloads:
        return np.array([layer.loads_s for layer in plan.layers])
    problem = replace(planned_problem(plan), unit="head")
    layers = [problem.layer(index) for index in range(problem.layers)]
    return np.array(
        [
            layer.loads_of_shares(shares)[0]
            for layer, shares in zip(layers, plan.shares, strict=True)
        ]
    )


def predict(plan: Plan, layers: Sequence[int]) -> Prediction:
    """Makespan and bubble of some layers of a plan."""
    loads = planned_loads(plan)[list(layers)]
    makespans = loads.max(axis=1)
    return Prediction(float(makespans.sum()), bubble_ratio(loads, makespans))


def measure(
    plan: Plan, layers: Sequence[int], samples: Iterable[tuple[int, int, float]]
) -> RoundMedians | None:
    """Medians of (layer, device, seconds) samples; None before the first complete round.

    A round is complete when every device with a load in every layer of `layers` was timed; one
    without a load counts as idle whether it was timed or not.
    """
    loaded = _loaded(plan)
    seconds: dict[tuple[int, int], list[float]] = {}
    for layer, device, value in samples:
        seconds.setdefault((layer, device), []).append(value)
    run = list(layers)
    needed = [(layer, int(device)) for layer in run for device in np.flatnonzero(loaded[layer])]
    rounds = min((len(seconds.get(pair, ())) for pair in needed), default=0)
    if rounds == 0:
        return None
    loads = np.full(loaded.shape, np.nan)
    for pair, values in seconds.items():
        loads[pair] = np.median(values)
    busy = np.where(loaded, np.nan_to_num(loads), 0.0)[run]
    makespans = busy.max(axis=1)
    return RoundMedians(rounds, loads, float(makespans.sum()), bubble_ratio(busy, makespans))


def _loaded(plan: Plan) -> NDArray[np.bool_]:
    """Which devices have work in a layer, [layers, devices]: padding alone is not timed."""
    return np.asarray((plan.shares > 0).any(axis=1) & (planned_loads(plan) > 0))


def prediction_error(plan: Plan, layers: Sequence[int], measured: RoundMedians) -> float:
    """Mean over layers and loaded devices of |predicted - measured| / measured."""
    predicted = planned_loads(plan)[list(layers)]
    found = measured.loads_s[list(layers)]
    loaded = _loaded(plan)[list(layers)]
    return float(np.mean(np.abs(predicted[loaded] - found[loaded]) / found[loaded]))


def time_drift(predicted: Prediction, measured: RoundMedians) -> float:
    """Measured over predicted makespan, clamped: a wild ratio says no more than a large one."""
    return float(np.clip(measured.makespan_s / predicted.makespan_s, *DRIFT_LIMITS))
