"""The configuration bound against brute force and linear programs on small layers."""

from dataclasses import replace
from itertools import product
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import linprog

from solver.shares import Ints
from tests.solver.filling.cases import Case, cases, equal_counts, make_case


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


@settings(max_examples=25, deadline=None)
@given(cases(items=6, devices=3))
def test_never_above_the_optimum(case: Case) -> None:
    optimum = case.optimum()
    for reached in (optimum, 1.3 * optimum):
        assert case.bound(reached) <= optimum * (1 + 1e-12)


@settings(max_examples=15, deadline=None)
@given(cases(items=6, devices=3))
def test_never_above_the_optimum_of_equal_counts(case: Case) -> None:
    one_type = replace(case, type_of=np.zeros_like(case.type_of))
    counts = equal_counts(case)
    optimum = one_type.optimum(counts)
    bound = one_type.bound(1.3 * optimum, equal_counts=True)
    assert bound <= optimum * (1 + 1e-12)


@settings(max_examples=10, deadline=None)
@given(cases(items=5, devices=2, groups=3))
def test_never_above_the_divided_optimum(case: Case) -> None:
    optimum = case.divided_optimum()
    for reached in (optimum, 1.3 * optimum):
        assert case.bound(reached, divisible=True) <= optimum * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("charge", [0.0, 0.6])
def test_reaches_the_configuration_program(seed: int, charge: float) -> None:
    case = make_case(8, 2, 3, seed=seed, charge=charge)
    expected = configuration_program(case)
    bound = case.bound(2 * expected)
    assert (1 - 2e-3) * expected <= bound <= expected


@pytest.mark.parametrize("seed", range(5))
def test_reaches_the_configuration_program_of_equal_counts(seed: int) -> None:
    case = make_case(8, 2, 4, seed=seed, charge=0.6)
    counts = equal_counts(case)
    expected = configuration_program(case, counts)
    bound = case.bound(2 * expected, equal_counts=True)
    assert (1 - 3e-3) * expected <= bound <= expected
    assert bound >= case.bound(2 * expected) * (1 - 3e-3)


def test_proves_what_the_mean_cannot() -> None:
    """Three groups of two on two devices: one is divided, and both pay for it."""
    case = Case(
        np.ones((6, 1)), np.full((3, 1), 1.0), np.zeros(1), np.arange(6) // 2, np.zeros(2, int)
    )
    mean = (6 + 3) / 2
    assert case.bound(6.0) == pytest.approx(case.optimum(), rel=2e-3)
    assert case.optimum() == 5.0 > mean


def test_a_divided_group_pays_its_charge_twice() -> None:
    """One group of one item on two devices: half of it and the whole charge on each."""
    case = Case(
        np.full((1, 1), 4.0), np.ones((1, 1)), np.zeros(1), np.zeros(1, int), np.zeros(2, int)
    )
    assert case.bound(5.0, divisible=True) == pytest.approx(3.0, rel=2e-3)
    assert case.bound(5.0) == pytest.approx(5.0, rel=2e-3)


def test_divided_items_without_charges_have_the_mean() -> None:
    case = make_case(12, 4, 3, charge=0.0)
    mean = float(case.item_s.sum() / 3 + case.launch_s[0])
    assert case.bound(2 * mean, divisible=True) == pytest.approx(mean, rel=2e-3)


def test_unlike_devices_reach_the_optimum_of_one_item_each() -> None:
    case = Case(
        np.array([[2.0, 4.0], [3.0, 9.0]]),
        np.zeros((2, 2)),
        np.array([0.5, 0.25]),
        np.arange(2),
        np.array([0, 1]),
    )
    assert case.optimum() == 4.25
    assert case.bound(8.0) == pytest.approx(4.25, rel=2e-3)


def test_keeps_what_is_known_and_claims_no_more_than_was_reached() -> None:
    case = make_case(8, 2, 3)
    optimum = case.optimum()
    assert case.bound(optimum, known_s=optimum) == optimum
    assert case.bound(0.5 * optimum) == pytest.approx(0.5 * optimum, rel=1e-6)
    assert case.bound(0.5 * optimum) <= 0.5 * optimum


@pytest.mark.parametrize("divisible", [False, True])
def test_a_deadline_that_is_over_leaves_the_known_bound(divisible: bool) -> None:
    case = make_case(32, 4, 8)
    over = case.bound(100.0, known_s=1.0, seconds=-1.0, divisible=divisible)
    assert over == 1.0


def test_a_cancelled_search_leaves_the_known_bound() -> None:
    cancelled = Event()
    cancelled.set()
    assert make_case(32, 4, 8).bound(100.0, known_s=1.0, cancelled=cancelled) == 1.0
