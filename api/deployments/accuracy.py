"""What was measured of a live plan, beside what was predicted of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from api.client.bodies import PredictedView
from solver.planning.figures import bubble_ratio
from solver.planning.predict import planned_problem
from solver.plans import Plan
from solver.shares import Floats

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


def planned_loads(plan: Plan) -> Floats:
    """Predicted seconds of the workload that is run, the plan's first, [layers, devices]."""
    if not plan.other_workloads:
        return np.array([layer.loads_s for layer in plan.layers])
    [loads] = planned_problem(plan).by_head().loads_of_each([plan.placed])
    return np.asarray(loads)


def predict(plan: Plan, layers: Sequence[int]) -> PredictedView:
    """Makespan and bubble of some layers of a plan."""
    loads = planned_loads(plan)[list(layers)]
    makespans = loads.max(axis=1)
    return predicted_view(loads, makespans)


def predicted_view(loads: Floats, makespans: Floats) -> PredictedView:
    """Of loads [layers, devices] and makespans [layers]."""
    bubble = bubble_ratio(loads, makespans)
    return PredictedView(makespan_s=float(makespans.sum()), bubble_ratio=bubble)


def measure(plan: Plan, layers: Sequence[int], samples: ArrayLike) -> RoundMedians | None:
    """Medians of [samples, 3] layers, devices and seconds; None before the first complete round.

    A round is complete when every device with a load in every layer of `layers` was timed; one
    without a load counts as idle whether it was timed or not.
    """
    loaded, run = _loaded(plan), list(layers)
    table = np.asarray(samples, dtype=np.float64).reshape(-1, 3)
    place = table[:, 0].astype(np.int64) * loaded.shape[1] + table[:, 1].astype(np.int64)
    times = np.bincount(place, minlength=loaded.size).reshape(loaded.shape)
    needed = times[run][loaded[run]]
    rounds = int(needed.min()) if needed.size else 0
    if rounds == 0:
        return None
    # In order of their places, and of seconds within each: a median is in the middle of its place.
    by_place = table[np.lexsort((table[:, 2], place)), 2]
    ends = np.cumsum(times.ravel()).reshape(loaded.shape)
    timed = times > 0
    first = (ends - times)[timed]
    loads = np.full(loaded.shape, np.nan)
    middles = [first + (times[timed] - half) // 2 for half in (1, 0)]
    loads[timed] = np.mean([by_place[middle] for middle in middles], axis=0)
    busy = np.where(loaded, np.nan_to_num(loads), 0.0)[run]
    makespans = busy.max(axis=1)
    return RoundMedians(rounds, loads, float(makespans.sum()), bubble_ratio(busy, makespans))


def _loaded(plan: Plan) -> NDArray[np.bool_]:
    """Which devices have work in a layer, [layers, devices]: padding alone is not timed."""
    return np.stack([s.amounts() > 0 for s in plan.placed]) & (planned_loads(plan) > 0)


def prediction_error(plan: Plan, layers: Sequence[int], measured: RoundMedians) -> float:
    """Mean over layers and loaded devices of |predicted - measured| / measured."""
    predicted = planned_loads(plan)[list(layers)]
    found = measured.loads_s[list(layers)]
    loaded = _loaded(plan)[list(layers)]
    return float(np.mean(np.abs(predicted[loaded] - found[loaded]) / found[loaded]))


def time_drift(predicted: PredictedView, measured: RoundMedians) -> float:
    """Measured over predicted makespan, clamped: a wild ratio says no more than a large one."""
    return float(np.clip(measured.makespan_s / predicted.makespan_s, *DRIFT_LIMITS))
