"""Exchange descent: never worse than its start, true to the rules, better where charges bite."""

import numpy as np
from hypothesis import given, settings

from solver.heuristics.contiguous import contiguous
from solver.heuristics.exchange import exchange
from solver.heuristics.greedy import greedy
from solver.heuristics.greedy_equal import greedy_equal
from solver.problem import LayerProblem
from tests.solver.problems import brute_force, layers, make_layer, soon
from tests.solver.test_bounds import layer_of


@settings(max_examples=80, deadline=None)
@given(layers(max_items=18, max_devices=5))
def test_never_worse_than_its_start_and_the_counts_are_kept(layer: LayerProblem) -> None:
    for method in (contiguous, greedy, greedy_equal):
        start = method(layer)
        before = start.copy()
        found = exchange(layer, start, soon())
        assert (start == before).all(), "the start is the caller's"
        assert layer.makespan(found) <= layer.makespan(start)
        if layer.allows(start):
            assert layer.allows(found)


@settings(max_examples=60, deadline=None)
@given(layers(max_items=6))
def test_never_below_the_optimum(layer: LayerProblem) -> None:
    start = contiguous(layer)
    assert layer.makespan(exchange(layer, start, soon())) >= brute_force(layer) * (1 - 1e-12)


def test_a_swap_that_greedy_misses() -> None:
    layer = layer_of([3, 3, 2, 2, 2], 2)
    assert layer.makespan(greedy(layer)) == 7
    assert layer.makespan(exchange(layer, greedy(layer), soon())) == 6


def test_a_swap_that_gathers_two_groups() -> None:
    groups = np.array([0] * 4 + [1] * 4)
    layer = layer_of([1.0] * 8, 2, group_s=np.full((1, 2, 2), 10.0), group_of=groups)
    astray = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    assert layer.makespan(astray) == 24
    assert layer.makespan(exchange(layer, astray, soon())) == 14


def test_it_improves_on_charge_blind_greedy_where_copies_cost() -> None:
    cases = [make_layer(32, 4, 4, seed=seed, charge=0.5) for seed in range(10)]
    blind = sum(layer.makespan(greedy(layer)) for layer in cases)
    descended = sum(layer.makespan(exchange(layer, greedy(layer), soon())) for layer in cases)
    assert descended < 0.97 * blind


def test_moving_to_an_empty_device_is_no_gain_by_its_launch() -> None:
    layer = make_layer(4, 1, 12, charge=0.1)
    start = greedy(layer)
    assert (exchange(layer, start, soon()) == start).all()
