"""Deciding makespans by classes: optimal on small layers, its bounds hold, honest when stopped."""

import time
from itertools import product
from threading import Event, Timer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.placement import alike as module
from solver.placement.alike import alike
from solver.placement.all_fillings import WholeCosts, all_fillings
from solver.placement.contiguous import contiguous
from solver.placement.counting import count
from solver.placement.exact import Deadline, Effort
from solver.placement.interchangeable import classes_of
from solver.problem import Assignment, LayerProblem
from tests.solver.problems import brute_force, layers, make_layer, soon

TOLERANCE = 1e-3


def whole_costs(layer: LayerProblem) -> WholeCosts:
    return module._whole(layer, classes_of(layer), 1e5)


def decidable(layer: LayerProblem) -> LayerProblem | None:
    """The layer of its first workload, if its devices are identical."""
    return layer.of_workload(0) if layer.identical else None


@settings(max_examples=30, deadline=None)
@given(layers())
def test_it_reaches_the_optimum_and_its_bound_holds(layer: LayerProblem) -> None:
    one = decidable(layer)
    if one is None:
        assert alike(layer, contiguous(layer), 0.0, TOLERANCE, soon(), Effort()) is None
        return
    optimum = brute_force(one)
    for bound in (0.0, optimum / 2, optimum):
        found = alike(one, contiguous(one), bound, TOLERANCE, soon(), Effort())
        assert found is not None
        assert found.assignment is not None
        assert one.allows(found.assignment)
        assert one.makespan(found.assignment) <= optimum * (1 + 1.01 * TOLERANCE)
        assert optimum * (1 - 2 * TOLERANCE) <= found.lower_bound_s <= optimum * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(layers(), st.sampled_from([0.02, 0.1, 0.3]))
def test_the_bound_holds_where_the_search_ends_early(layer: LayerProblem, loose: float) -> None:
    one = decidable(layer)
    if one is None:
        return
    found = alike(one, contiguous(one), 0.0, loose, soon(), Effort())
    assert found is not None
    assert found.assignment is not None
    assert found.lower_bound_s <= brute_force(one) * (1 + 1e-9)
    assert found.lower_bound_s >= one.makespan(found.assignment) * (1 - 1.5 * loose)


@settings(max_examples=20, deadline=None)
@given(layers())
def test_counting_finds_what_covering_finds(layer: LayerProblem) -> None:
    one = decidable(layer)
    if one is None:
        return
    costs = whole_costs(one)
    optimum = brute_force(one) - float(one.launch_s[0, 0])
    loose = count(costs, int(optimum * 1e5 * (1 + 1e-9)) + 1, soon(), Effort())
    assert loose.counts is not None
    assert one.allows(costs.classes.placed(loose.counts))
    assert one.makespan(costs.classes.placed(loose.counts)) <= brute_force(one) + 1e-3
    assert count(costs, int(optimum * 1e5 * (1 - 1e-3)) - 20, soon(), Effort()).impossible


@settings(max_examples=25, deadline=None)
@given(layers())
def test_every_device_of_every_placement_within_is_among_the_fillings(layer: LayerProblem) -> None:
    one = decidable(layer)
    if one is None:
        return
    costs = whole_costs(one)
    best_s = brute_force(one)
    room = int((best_s * 1.2 - float(one.launch_s[0, 0])) * 1e5)
    fillings = all_fillings(costs, room, soon())
    assert fillings is not None
    for choice in product(range(one.devices), repeat=one.items):
        assignment: Assignment = np.array(choice, dtype=np.int64)
        if one.allows(assignment) and one.makespan(assignment) <= best_s * 1.2:
            held = costs.classes.counted(assignment, one.devices)
            for filling in held.T[held.any(axis=0)]:
                same = fillings == filling if one.equal_counts else fillings >= filling
                assert same.all(axis=1).any()


def test_too_many_fillings_are_not_listed() -> None:
    layer = make_layer(128, 16, 4)
    assert all_fillings(whole_costs(layer), 10**9, soon()) is None


def test_found_on_the_way_is_told() -> None:
    layer = make_layer(16, 4, 4, seed=3, charge=0.5)
    told: list[Assignment] = []
    found = alike(layer, contiguous(layer), 0.0, TOLERANCE, soon(), Effort(), told.append)
    assert found is not None
    makespans = [layer.makespan(assignment) for assignment in told]
    assert makespans
    assert makespans == sorted(makespans, reverse=True)
    assert makespans[-1] == layer.makespan(found.assignment)


def test_seeded_searches_end_alike() -> None:
    layer = make_layer(16, 4, 4, seed=5, charge=0.5)
    ends = [
        alike(layer, contiguous(layer), 0.0, TOLERANCE, soon(30), Effort(seed=1, units=0.2))
        for _ in range(2)
    ]
    assert ends[0] is not None
    assert ends[1] is not None
    assert (ends[0].assignment == ends[1].assignment).all()
    assert ends[0].lower_bound_s == ends[1].lower_bound_s


def test_without_time_the_start_and_the_bound_come_back() -> None:
    layer = make_layer(32, 4, 4, seed=1)
    start = contiguous(layer)
    found = alike(layer, start, 0.5, TOLERANCE, soon(0), Effort())
    assert found is not None
    assert (found.assignment == start).all()
    assert found.lower_bound_s == 0.5


def test_it_stops_when_cancelled() -> None:
    hard = make_layer(128, 8, 8, seed=3, charge=0.4)
    cancelled = Event()
    Timer(0.3, cancelled.set).start()
    started = time.monotonic()
    found = alike(hard, contiguous(hard), 0.0, 0.0, Deadline(started + 60, cancelled), Effort())
    assert time.monotonic() - started < 30  # half of what it was given
    assert found is not None
    assert hard.makespan(found.assignment) <= hard.makespan(contiguous(hard))


@pytest.mark.parametrize("equal_counts", [False, True])
def test_a_bound_as_good_as_the_start_asks_nothing(equal_counts: bool) -> None:
    layer = make_layer(8, 2, 2, equal_counts=equal_counts)
    start = contiguous(layer)
    found = alike(layer, start, layer.makespan(start), TOLERANCE, soon(), Effort())
    assert found is not None
    assert (found.assignment == start).all()
