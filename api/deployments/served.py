"""What an engine's ranks measured on requests of any length, beside what their work predicts.

A step counts once every node of the deployment has told of it: ranks wait for each other in every
layer, so that its makespan is that of the slowest in each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from api.client.bodies import PredictedView
from api.deployments.accuracy import DRIFT_LIMITS, RoundMedians, predicted_view
from api.store import rate_store, served_store
from api.store.served_store import Reported, Samples, Step
from api.store.session import Session
from api.store.tables import StoredDeployment, StoredGeneration
from profiles.cost.rates import RatesOf
from profiles.traffic import StepTraffic
from solver.planning.figures import bubble_ratio
from solver.plans import Plan
from solver.shares import Floats

MOST_STEPS = 2000
"""The newest that are looked at."""

Key = tuple[str, int, bool]
"""A step's run, number and phase."""


@dataclass(frozen=True, eq=False)
class ServedSteps:
    """Steps that all nodes told of: `measured_s`, `predicted_s` [steps, layers, devices], of the
    work that was reported; `rounds`, the batches of the node with the fewest."""

    rounds: int
    steps: list[Step]
    measured_s: Floats
    predicted_s: Floats

    @property
    def means(self) -> RoundMedians:
        """A step's mean load, NaN where a device never had any, and its makespan."""
        loads = self.measured_s.mean(axis=0)
        makespans = self.measured_s.max(axis=2).mean(axis=0)
        never = ~self.measured_s.any(axis=0)
        return RoundMedians(
            self.rounds,
            np.where(never, np.nan, loads),
            float(makespans.sum()),
            bubble_ratio(loads, makespans),
        )

    @property
    def predicted(self) -> PredictedView:
        """The same of the work reported, by the rates of the generation's day."""
        loads, makespans = self.predicted_s.mean(axis=0), self.predicted_s.max(axis=2).mean(axis=0)
        return predicted_view(loads, makespans)

    @property
    def slowdown(self) -> float:
        """Measured over predicted makespan, of the same work."""
        measured, predicted = (x.max(axis=2).sum() for x in (self.measured_s, self.predicted_s))
        return float(np.clip(measured / predicted, *DRIFT_LIMITS))

    @property
    def error(self) -> float:
        """Mean of |predicted - measured| / measured over layers, devices and phases."""
        prefill = np.array([step.prefill for step in self.steps])
        errors = []
        for of_phase in (prefill, ~prefill):
            measured = self.measured_s[of_phase].sum(axis=0)
            predicted = self.predicted_s[of_phase].sum(axis=0)
            timed = measured > 0
            errors.append(np.abs(predicted - measured)[timed] / measured[timed])
        return float(np.concatenate(errors).mean())

    @property
    def traffic(self) -> StepTraffic:
        """What the steps were, and how long the ranks took for each."""
        columns = zip(*self.steps, strict=True)
        _, prefill, sequences, rows, _, tokens = (np.array(column) for column in columns)
        seconds = self.measured_s.max(axis=2).sum(axis=1)
        return StepTraffic(prefill, sequences, rows, tokens.astype(np.float64), seconds)


def served(
    session: Session, deployment: StoredDeployment, generation: int, plan: Plan
) -> ServedSteps | None:
    """What engines told of a generation, by the rates that were in force when it went live; None
    where none did."""
    told = served_store.of_generation(session, deployment.name, generation)
    if not told:
        return None
    began = session.get(StoredGeneration, (deployment.name, generation))
    when = None if began is None else began.at
    rates = rate_store.rates_of(session, plan.device_types, when=when)
    samples = served_store.samples(session, [each.batch for each in told])
    shape = len(plan.layers), len(plan.devices)
    return served_steps(deployment.nodes, shape, told, samples, rates)


def served_steps(
    nodes: Sequence[str],
    shape: tuple[int, int],
    told: Sequence[Reported],
    samples: Iterable[Samples],
    rates: RatesOf,
) -> ServedSteps | None:
    """The newest steps of which every one of `nodes` told, of a plan of `shape` layers and devices;
    None before there is one. `rates` are those that predictions go by."""
    batches = {node: [each for each in told if each.node == node] for node in nodes}
    keys = {node: {key for each in of for key in _keys(each)} for node, of in batches.items()}
    steps = {key: step for each in told for key, step in _keys(each).items()}
    complete = [key for key in steps if all(key in known for known in keys.values())]
    complete = complete[-MOST_STEPS:]
    if not complete:
        return None
    place = {key: number for number, key in enumerate(complete)}
    where = {
        each.batch: np.array([place.get(_key(each, step), -1) for step in each.steps])
        for each in told
    }
    measured, predicted = np.zeros((2, len(complete), *shape))
    for each in samples:
        at = where[each.batch][each.steps]
        known = at >= 0
        index = (at[known], each.layers[known], each.devices[known])
        np.add.at(measured, index, each.seconds[known])
        seconds = rates[each.phase][each.device_type].seconds(each.work[known])
        np.add.at(predicted, index, seconds)
    if not measured.any():
        return None
    rounds = min(len(of) for of in batches.values())
    return ServedSteps(rounds, [steps[key] for key in complete], measured, predicted)


def _keys(each: Reported) -> dict[Key, Step]:
    return {_key(each, step): step for step in each.steps}


def _key(each: Reported, step: Step) -> Key:
    return each.run, step.number, step.prefill
