"""MULTIFIT: never worse than the longest first where costs add up, and within its known ratio."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from solver.heuristics.greedy import greedy
from solver.heuristics.multifit import HALVINGS, multifit
from solver.problem import LayerProblem
from tests.solver.problems import brute_force, make_layer
from tests.solver.test_bounds import layer_of

additive = st.builds(
    make_layer,
    st.integers(1, 24),
    st.just(1),
    st.integers(1, 8),
    seed=st.integers(0, 10_000),
    equal_counts=st.booleans(),
    charge=st.sampled_from([0.0, 0.4]),
    two_valued=st.booleans(),
    workloads=st.just(1),
)


@given(additive)
def test_never_worse_than_the_longest_first_and_the_counts_are_kept(layer: LayerProblem) -> None:
    found = multifit(layer)
    assert layer.allows(found)
    assert layer.makespan(found) <= layer.makespan(greedy(layer)) * (1 + 1e-12)


@examples(max_examples=30)
@given(st.integers(2, 8), st.integers(2, 3), st.integers(0, 10_000))
def test_within_13_11_of_the_optimum(items: int, devices: int, seed: int) -> None:
    """Yue 1990 of first-fit decreasing, and what the last interval leaves."""
    costs = np.random.default_rng(seed).integers(1, 30, items).astype(float).tolist()
    layer = layer_of(costs, devices)
    ratio = 13 / 11 + 2.0**-HALVINGS
    assert layer.makespan(multifit(layer)) <= ratio * brute_force(layer) * (1 + 1e-12)


def test_it_fits_where_the_longest_first_does_not() -> None:
    layer = layer_of([3, 3, 2, 2, 2], 2)
    assert layer.makespan(greedy(layer)) == 7
    assert layer.makespan(multifit(layer)) == 6


def test_shared_charges_are_counted_item_by_item_and_judged_as_they_are() -> None:
    layer = make_layer(8, 4, 2, charge=3.0)
    assert not layer.additive
    found = multifit(layer)
    assert found.shape == (8,)
    assert layer.makespan(found) >= brute_force(layer) * (1 - 1e-12)


@pytest.mark.parametrize("items", [1, 3])
def test_fewer_items_than_devices_lie_alone(items: int) -> None:
    found = multifit(layer_of([5.0] * items, 4))
    assert len(set(found.tolist())) == items
