"""Placements put together from fillings: within what was asked, and none refused that exists."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from solver.deadline import Effort
from solver.filling.cover import LEVELS, Cover, Decided
from solver.heuristics.greedy import greedy
from solver.problem import Assignment, LayerProblem
from tests.solver.problems import brute_force, make_layer, soon

layers = st.builds(
    make_layer,
    st.sampled_from([2, 4, 6]),
    st.sampled_from([1, 2]),
    st.integers(2, 3),
    seed=st.integers(0, 10_000),
    types=st.sampled_from([1, 1, 2]),
    equal_counts=st.booleans(),
    charge=st.sampled_from([0.0, 0.5, 3.0]),
    two_valued=st.booleans(),
)


def best_of(layer: LayerProblem) -> Assignment:
    """The best placement, by trying every one."""
    every = (np.array(choice) for choice in product(range(layer.devices), repeat=layer.items))
    return min((placed for placed in every if layer.allows(placed)), key=layer.makespan)


def decide(layer: LayerProblem, within_s: float, *met: Assignment) -> Decided:
    cover = Cover(layer, layer.makespan(greedy(layer)))
    for assignment in met:
        cover.add_placement(assignment)
    decided = cover.decide(within_s, soon(), Effort())
    if decided.assignment is not None:
        assert layer.allows(decided.assignment)
        rounding_s = (layer.items + layer.groups + 1) * layer.makespan(greedy(layer)) / LEVELS
        assert layer.makespan(decided.assignment) <= within_s + rounding_s
        assert decided.bound_s == 0
    return decided


@examples(max_examples=60)
@given(layers, st.sampled_from([0.5, 0.9, 0.999, 1.0, 1.001, 1.2]))
def test_on_identical_devices_every_question_is_answered(
    layer: LayerProblem, factor: float
) -> None:
    optimum = brute_force(layer)
    decided = decide(layer, factor * optimum)
    if not layer.identical:
        assert decided.bound_s == 0, "nothing met proves nothing"
        return
    assert (decided.assignment is not None) == (factor >= 1)
    if factor < 1:
        assert factor * optimum * (1 - 1e-6) <= decided.bound_s <= optimum * (1 + 1e-9)


@examples(max_examples=40)
@given(layers)
def test_a_placement_whose_fillings_were_met_is_found_again(layer: LayerProblem) -> None:
    best = best_of(layer)
    decided = decide(layer, layer.makespan(best) * (1 + 1e-9), greedy(layer), best)
    assert decided.assignment is not None


def test_fillings_of_several_placements_make_one_that_none_of_them_is() -> None:
    """On unlike devices only what was met is asked of: one half from each of two placements."""
    costs = np.array([[4.0, 9.0], [3.0, 9.0], [9.0, 4.0], [9.0, 3.0]])
    layer = LayerProblem(
        item_s=costs[None][..., [0, 0, 1, 1]],
        part_s=np.zeros((1, 4, 4)),
        group_s=np.zeros((1, 4, 4)),
        launch_s=np.zeros((1, 4)),
        weights=np.ones(1),
        group_of=np.arange(4),
        type_of=np.array([0, 0, 1, 1]),
    )
    one, other = np.array([0, 1, 2, 2]), np.array([0, 0, 2, 3])
    assert layer.makespan(one) == layer.makespan(other) == 7
    decided = decide(layer, 4.0, one, other)
    assert decided.assignment is not None
    assert layer.makespan(decided.assignment) == 4


def test_nothing_is_proved_without_time() -> None:
    layer = make_layer(6, 2, 3, seed=1)
    cover = Cover(layer, layer.makespan(greedy(layer)))
    decided = cover.decide(0.5 * brute_force(layer), soon(-1), Effort())
    assert decided.assignment is None
    assert decided.bound_s == 0


def test_a_covering_given_up_is_no_proof() -> None:
    """All fillings are listed, but no work is allowed for putting them together."""
    layer = make_layer(9, 3, 3, seed=1)
    cover = Cover(layer, layer.makespan(greedy(layer)))
    decided = cover.decide(brute_force(layer), soon(), Effort(seed=0, units=0.0))
    assert decided.bound_s == 0
    assert cover.decide(brute_force(layer), soon(), Effort()).assignment is not None


@pytest.mark.parametrize("equal_counts", [False, True])
def test_no_time_is_no_proof_where_fillings_were_met(equal_counts: bool) -> None:
    layer = make_layer(6, 2, 3, seed=1, equal_counts=equal_counts)
    cover = Cover(layer, layer.makespan(greedy(layer)))
    cover.add_placement(greedy(layer))
    assert cover.decide(2 * brute_force(layer), soon(-1), Effort()).bound_s == 0
