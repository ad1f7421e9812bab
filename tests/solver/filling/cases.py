"""Small layers by device type: their optima by trying everything, and their bound."""

import time
from dataclasses import dataclass, replace
from itertools import product
from threading import Event

import numpy as np
from hypothesis import strategies as st
from scipy.optimize import linprog

from solver.deadline import Deadline
from solver.filling.configuration_program import ConfigurationProgram
from solver.problem import LayerProblem
from solver.shares import Floats, Ints


@dataclass(frozen=True, eq=False)
class Case:
    """One layer's costs by device type, and the devices."""

    item_s: Floats
    charge_s: Floats
    launch_s: Floats
    group_of: Ints
    type_of: Ints

    @property
    def devices(self) -> int:
        return len(self.type_of)

    def load(self, items: np.ndarray, device: int) -> float:
        """Seconds of a device that has these shares of the items, [items]."""
        kind = self.type_of[device]
        groups = np.unique(self.group_of[items > 0])
        launch = self.launch_s[kind] if len(groups) else 0.0
        return float(items @ self.item_s[:, kind] + self.charge_s[groups, kind].sum() + launch)

    def optimum(self, counts: Ints | None = None) -> float:
        best = np.inf
        for choice in product(range(self.devices), repeat=len(self.item_s)):
            placed = np.array(choice)
            held = np.bincount(placed, minlength=self.devices)
            if counts is None or (held == counts).all():
                loads = [self.load((placed == d).astype(float), d) for d in range(self.devices)]
                best = min(best, max(loads))
        return float(best)

    def divided_optimum(self) -> float:
        """The least makespan over every choice of which devices have which groups: one LP each."""
        groups = len(self.charge_s)
        return min(
            self._shared(np.array(choice, dtype=bool).reshape(groups, self.devices))
            for choice in product((False, True), repeat=groups * self.devices)
        )

    def _shared(self, present: np.ndarray) -> float:
        if not present.any(axis=1)[self.group_of].all():
            return np.inf
        items, devices = len(self.item_s), self.devices
        cost = np.hstack([np.zeros(items * devices), [1.0]])
        loads = np.zeros((devices, items * devices + 1))
        loads[:, -1] = -1.0
        fixed = np.zeros(devices)
        whole = np.zeros((items, items * devices + 1))
        for d, kind in enumerate(self.type_of):
            loads[d, d : items * devices : devices] = self.item_s[:, kind]
            launch = self.launch_s[kind] if present[:, d].any() else 0.0
            fixed[d] = self.charge_s[present[:, d], kind].sum() + launch
            whole[np.arange(items), np.arange(items) * devices + d] = 1.0
        upper = [(0, 1 if present[g, d] else 0) for g in self.group_of for d in range(devices)]
        solved = linprog(
            cost, loads, -fixed, whole, np.ones(items), [*upper, (0, None)], method="highs"
        )
        return float(solved.fun)

    def bound(
        self,
        reached_s: float,
        *,
        equal_counts: bool = False,
        known_s: float = 0.0,
        divisible: bool = False,
        seconds: float = 10.0,
        cancelled: Event | None = None,
    ) -> float:
        deadline = Deadline(time.monotonic() + seconds, cancelled or Event())
        layer = self.layer(equal_counts=equal_counts, divisible=divisible)
        return ConfigurationProgram(layer, reached_s).bound_s(known_s, reached_s, 1e-4, deadline)

    def layer(self, *, equal_counts: bool = False, divisible: bool = False) -> LayerProblem:
        return LayerProblem(
            item_s=self.item_s[None][..., self.type_of],
            part_s=np.zeros((1, len(self.item_s), self.devices)),
            group_s=self.charge_s[None][..., self.type_of],
            launch_s=self.launch_s[None][:, self.type_of],
            weights=np.ones(1),
            group_of=self.group_of,
            type_of=self.type_of,
            equal_counts=equal_counts,
            divisible=divisible,
        )


def make_case(
    items: int,
    group_size: int,
    devices: int,
    *,
    seed: int = 0,
    types: int = 1,
    charge: float = 0.3,
    two_valued: bool = False,
) -> Case:
    rng = np.random.default_rng(seed)
    cost = rng.choice([1.0, 12.0], items) if two_valued else rng.lognormal(0, 1, items)
    group_of = np.arange(items) // group_size
    groups = int(group_of.max()) + 1
    return Case(
        cost[:, None] * rng.uniform(0.5, 2.0, (items, types)),
        charge * rng.uniform(0.5, 2.0, (groups, types)),
        0.1 * rng.uniform(0.5, 2.0, types),
        group_of,
        np.sort(rng.integers(0, types, devices)),
    )


@st.composite
def cases(draw: st.DrawFn, items: int, devices: int, groups: int = 6) -> Case:
    number = draw(st.integers(1, items))
    case = make_case(
        number,
        draw(st.integers(max(1, -(-number // groups)), 4)),
        draw(st.integers(1, devices)),
        seed=draw(st.integers(0, 10_000)),
        types=draw(st.sampled_from([1, 1, 2])),
        charge=draw(st.sampled_from([0.0, 0.05, 0.5, 5.0])),
        two_valued=draw(st.booleans()),
    )
    alike = draw(st.booleans())
    item_s = np.repeat(case.item_s[:1], number, axis=0) if alike else case.item_s
    charge_s = np.repeat(case.charge_s[:1], len(case.charge_s), axis=0) if alike else case.charge_s
    return replace(case, item_s=item_s, charge_s=charge_s)


def equal_counts(case: Case) -> Ints:
    small, larger = divmod(len(case.item_s), case.devices)
    return np.array([small + (d < larger) for d in range(case.devices)])
