"""The configuration bound against brute force and linear programs on small layers."""

import time
from dataclasses import dataclass, replace
from itertools import product
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from solver.configurations import ConfigurationBound, Layer, configuration_bound, fill_in_turn
from solver.placement.exact import Deadline
from solver.problem import Floats, Ints


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
        counts: Ints | None = None,
        known_s: float = 0.0,
        divisible: bool = False,
        seconds: float = 10.0,
        cancelled: Event | None = None,
        tolerance: float = 1e-4,
    ) -> ConfigurationBound:
        return configuration_bound(
            self.item_s,
            self.charge_s,
            self.launch_s,
            self.group_of,
            np.bincount(self.type_of, minlength=len(self.launch_s)),
            counts,
            known_s,
            reached_s,
            Deadline(time.monotonic() + seconds, cancelled or Event()),
            divisible=divisible,
            tolerance=tolerance,
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


def configuration_program(case: Case, counts: Ints | None = None) -> float:
    """The least load at which all configurations cover the items fractionally; one type."""
    items = len(case.item_s)
    sets = np.array(list(product((0.0, 1.0), repeat=items)))
    loads = np.array([case.load(row, 0) for row in sets])
    allowed = np.ones(len(sets), dtype=bool)
    if counts is not None:
        assert len(set(counts)) == 1
        allowed = sets.sum(axis=1) == counts[0]
    for makespan in np.unique(loads[allowed]):
        fits = sets[allowed & (loads <= makespan + 1e-12)]
        solved = linprog(np.ones(len(fits)), -fits.T, -np.ones(items), method="highs")
        if solved.status == 0 and solved.fun <= case.devices + 1e-7:
            return float(makespan)
    raise AssertionError


@settings(max_examples=40, deadline=None)
@given(cases(items=6, devices=3))
def test_never_above_the_optimum(case: Case) -> None:
    optimum = case.optimum()
    for reached in (optimum, 1.3 * optimum):
        assert case.bound(reached).seconds <= optimum * (1 + 1e-12)


@settings(max_examples=25, deadline=None)
@given(cases(items=6, devices=3))
def test_never_above_the_optimum_of_equal_counts(case: Case) -> None:
    one_type = replace(case, type_of=np.zeros_like(case.type_of))
    counts = equal_counts(case)
    optimum = one_type.optimum(counts)
    bound = one_type.bound(1.3 * optimum, counts=counts)
    assert bound.seconds <= optimum * (1 + 1e-12)


@settings(max_examples=15, deadline=None)
@given(cases(items=5, devices=2, groups=3))
def test_never_above_the_divided_optimum(case: Case) -> None:
    optimum = case.divided_optimum()
    for reached in (optimum, 1.3 * optimum):
        assert case.bound(reached, divisible=True).seconds <= optimum * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("charge", [0.0, 0.6])
def test_reaches_the_configuration_program(seed: int, charge: float) -> None:
    case = make_case(8, 2, 3, seed=seed, charge=charge)
    expected = configuration_program(case)
    bound = case.bound(2 * expected).seconds
    assert (1 - 2e-3) * expected <= bound <= expected


@pytest.mark.parametrize("seed", range(5))
def test_reaches_the_configuration_program_of_equal_counts(seed: int) -> None:
    case = make_case(8, 2, 4, seed=seed, charge=0.6)
    counts = equal_counts(case)
    expected = configuration_program(case, counts)
    bound = case.bound(2 * expected, counts=counts).seconds
    assert (1 - 3e-3) * expected <= bound <= expected
    assert bound >= case.bound(2 * expected).seconds * (1 - 3e-3)


def test_proves_what_the_mean_cannot() -> None:
    """Three groups of two on two devices: one is divided, and both pay for it."""
    case = Case(
        np.ones((6, 1)), np.full((3, 1), 1.0), np.zeros(1), np.arange(6) // 2, np.zeros(2, int)
    )
    mean = (6 + 3) / 2
    assert case.bound(6.0).seconds == pytest.approx(case.optimum(), rel=2e-3)
    assert case.optimum() == 5.0 > mean


def test_a_divided_group_pays_its_charge_twice() -> None:
    """One group of one item on two devices: half of it and the whole charge on each."""
    case = Case(
        np.full((1, 1), 4.0), np.ones((1, 1)), np.zeros(1), np.zeros(1, int), np.zeros(2, int)
    )
    assert case.bound(5.0, divisible=True).seconds == pytest.approx(3.0, rel=2e-3)
    assert case.bound(5.0).seconds == pytest.approx(5.0, rel=2e-3)


def test_divided_items_without_charges_have_the_mean() -> None:
    case = make_case(12, 4, 3, charge=0.0)
    mean = float(case.item_s.sum() / 3 + case.launch_s[0])
    assert case.bound(2 * mean, divisible=True).seconds == pytest.approx(mean, rel=2e-3)


def test_unlike_devices_reach_the_optimum_of_one_item_each() -> None:
    case = Case(
        np.array([[2.0, 4.0], [3.0, 9.0]]),
        np.zeros((2, 2)),
        np.array([0.5, 0.25]),
        np.arange(2),
        np.array([0, 1]),
    )
    assert case.optimum() == 4.25
    assert case.bound(8.0).seconds == pytest.approx(4.25, rel=2e-3)


def test_keeps_what_is_known_and_claims_no_more_than_was_reached() -> None:
    case = make_case(8, 2, 3)
    optimum = case.optimum()
    assert case.bound(optimum, known_s=optimum).seconds == optimum
    assert case.bound(0.5 * optimum).seconds == pytest.approx(0.5 * optimum, rel=1e-6)
    assert case.bound(0.5 * optimum).seconds <= 0.5 * optimum


@pytest.mark.parametrize("divisible", [False, True])
def test_a_deadline_that_is_over_leaves_the_known_bound(divisible: bool) -> None:
    case = make_case(32, 4, 8)
    over = case.bound(100.0, known_s=1.0, seconds=-1.0, divisible=divisible)
    assert over.seconds == 1.0
    assert [len(columns) for columns in over.columns] == [0]


def test_a_cancelled_search_leaves_the_known_bound() -> None:
    cancelled = Event()
    cancelled.set()
    assert make_case(32, 4, 8).bound(100.0, known_s=1.0, cancelled=cancelled).seconds == 1.0


@pytest.mark.parametrize("divisible", [False, True])
def test_columns_are_fillings_within_what_was_reached(divisible: bool) -> None:
    case = make_case(12, 3, 4, types=2, charge=0.5)
    reached = 2 * float(case.item_s.sum()) / case.devices
    found = case.bound(reached, divisible=divisible)
    assert len(found.columns) == 2
    for device in range(case.devices):
        columns = found.columns[case.type_of[device]]
        assert len(columns)
        assert ((columns >= 0) & (columns <= 1)).all()
        assert len(np.unique(columns, axis=0)) == len(columns)
        # Costs are floored to the grid: a filling may be a little larger than it looked there.
        assert max(case.load(row, device) for row in columns) <= reached * 1.01


def layer_of(case: Case, counts: Ints | None = None) -> Layer:
    return Layer(case.item_s, case.charge_s, case.launch_s, case.group_of, case.type_of, counts)


@settings(max_examples=20, deadline=None)
@given(cases(items=6, devices=3), st.booleans())
def test_filling_in_turn_finds_the_optimum_of_small_layers(case: Case, equal: bool) -> None:
    if equal:
        case = replace(case, type_of=np.zeros_like(case.type_of))
    counts = equal_counts(case) if equal else None
    optimum = case.optimum(counts)
    reached = 1.5 * optimum
    bound = case.bound(reached, counts=counts)
    deadline = Deadline(time.monotonic() + 30, Event())
    layer = layer_of(case, counts)
    assignment = fill_in_turn(layer, bound.values, bound.seconds, reached, deadline)
    assert assignment is not None
    held = np.bincount(assignment, minlength=case.devices)
    assert counts is None or (held == counts).all()
    loads = [case.load((assignment == d).astype(float), d) for d in range(case.devices)]
    assert layer.loads(assignment) == pytest.approx(loads)
    assert optimum * (1 - 1e-12) <= max(loads) <= 1.1 * optimum


def test_filling_in_turn_closes_a_layer_of_a_real_shape() -> None:
    """32 heads in 8 groups, three costs, as MInference finds them."""
    case = make_case(32, 4, 4, charge=0.0)
    cost = np.random.default_rng(1).choice([0.126, 0.139, 0.748], (32, 1))
    case = replace(case, item_s=cost, charge_s=np.full((8, 1), 0.19))
    mean = float(cost.sum() + case.charge_s.sum()) / 4
    bound = case.bound(1.2 * mean, tolerance=1e-3)
    assignment = fill_in_turn(
        layer_of(case), bound.values, bound.seconds, 1.2 * mean, Deadline(np.inf, Event())
    )
    assert assignment is not None
    assert layer_of(case).loads(assignment).max() <= 1.02 * bound.seconds


def test_filling_in_turn_is_repeatable() -> None:
    case = make_case(16, 4, 3, charge=0.5)
    reached = float(case.item_s.sum())
    bound = case.bound(reached)
    first, second = (
        fill_in_turn(
            layer_of(case), bound.values, bound.seconds, reached, Deadline(np.inf, Event()), tries=5
        )
        for _ in range(2)
    )
    assert first is not None
    assert second is not None
    assert (first == second).all()


def test_filling_in_turn_finds_nothing_below_the_optimum_or_after_the_deadline() -> None:
    case = make_case(6, 2, 2)
    optimum = case.optimum()
    values = np.full(6, 1 / 6)
    later, over = Deadline(time.monotonic() + 30, Event()), Deadline(0.0, Event())
    assert fill_in_turn(layer_of(case), values, 0.0, optimum, later, tries=20) is None
    assert fill_in_turn(layer_of(case), values, 0.0, 2 * optimum, over) is None
