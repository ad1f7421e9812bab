"""Bounds hold: against every placement of tiny layers, divided on any support."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings

from solver.divide.components import Components
from solver.divide.divided_bounds import bounds_of_workloads, combined, divided_bound
from solver.divide.linear_program import best_shares, relaxed_bound_s, vertex
from solver.divide.weighted_mean import weighted_mean
from solver.problem import LayerProblem
from solver.shares import Shares
from tests.solver.divide.problems import divisible_layers, make_divisible
from tests.solver.problems import soon


def least_of_all_supports(layer: LayerProblem) -> float:
    """The optimum: the best shares on every choice of devices for every item."""
    some = [s for s in product([False, True], repeat=layer.devices) if any(s)]
    if layer.max_copies is not None:
        some = [s for s in some if sum(s) <= layer.max_copies]
    best = np.inf
    for choice in product(some, repeat=layer.items):
        shares = best_shares(layer, Shares.of(np.array(choice, dtype=float)), soon())
        assert shares is not None
        best = min(best, layer.objective(layer.loads_of_shares(shares)))
    return float(best)


@settings(max_examples=15, deadline=None)
@given(divisible_layers(max_items=3, max_devices=2) | divisible_layers(max_items=2, max_devices=3))
def test_no_placement_is_below_the_bound(layer: LayerProblem) -> None:
    optimum = least_of_all_supports(layer)
    assert combined(layer, bounds_of_workloads(layer), soon()).seconds <= optimum * (1 + 1e-9)
    found = vertex(layer, soon())
    assert found is not None
    assert layer.objective(layer.loads_of_shares(found)) >= optimum * (1 - 1e-6)


@settings(max_examples=40)
@given(divisible_layers(types=3))
def test_the_relaxation_is_below_all_shares(layer: LayerProblem) -> None:
    rng = np.random.default_rng(0)
    shares = Shares.of(rng.dirichlet(np.full(layer.devices, 0.3), layer.items))
    least_s = np.array([bound.seconds for bound in bounds_of_workloads(layer)])
    bound_s = relaxed_bound_s(layer, least_s, soon())
    assert bound_s <= layer.objective(layer.loads_of_shares(shares)) * (1 + 1e-9)


def test_the_relaxation_is_the_optimum_of_two_unlike_devices() -> None:
    """Work 3 on a device of speed 1 and one of speed 2, both launching in 1: done in 2."""
    layer = make_divisible(3, 1, 2, charge=0.0, launch=1.0)
    layer.item_s[0] = np.array([1.0, 0.5])
    layer = replace(layer, type_of=np.array([0, 1]))
    least_s = np.array([bound.seconds for bound in bounds_of_workloads(layer)])
    assert relaxed_bound_s(layer, least_s, soon()) == pytest.approx(2.0)
    # What others can prove is taken where it is as good.
    bound = combined(layer, bounds_of_workloads(layer), soon())
    assert bound.proof == "weighted mean load with the copies it forces"
    assert bound.seconds == pytest.approx(2.0, rel=1e-4)


def test_copies_that_a_group_forces_on_unlike_devices() -> None:
    """Work of 12 and a charge of 1 on two devices: both pay it, which the relaxation halves."""
    layer = make_divisible(1, 1, 2, charge=1.0, launch=0.0)
    layer.item_s[0] = 12.0
    layer = replace(layer, type_of=np.array([0, 1]))
    least_s = divided_bound(layer).seconds
    assert relaxed_bound_s(layer, np.array([least_s]), soon()) == pytest.approx(6.5)
    forced = weighted_mean(layer, soon())
    assert forced.seconds == pytest.approx(7.0, rel=1e-4)
    assert forced.seconds <= 7.0


def test_copies_that_groups_force() -> None:
    """Groups of 4.5 and 1.5 on three devices, a charge of 1: the mean alone says 8 / 3."""
    layer = make_divisible(2, 1, 3, charge=1.0, launch=0.0)
    layer.item_s[0] = np.array([[4.5], [1.5]])
    # Apart, two devices for 4.5 + 2 charges and one for 1.5 + 1 come to 3.25; together to 10 / 3.
    assert divided_bound(layer).seconds == pytest.approx(3.25, rel=1e-6)
    found = Components(layer).partition(3.26)
    assert sorted((groups.tolist(), devices) for groups, devices in found) == [([0], 2), ([1], 1)]


def test_one_copy_bounds_by_the_largest_item() -> None:
    layer = make_divisible(3, 1, 3, charge=0.5, launch=0.1, max_copies=1)
    assert divided_bound(layer).seconds == pytest.approx(layer.item_s.max() + 0.6)
