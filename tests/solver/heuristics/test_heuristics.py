"""Contiguous, snake, greedy and EPLB's greedy: what each promises."""

import numpy as np
import pytest
from hypothesis import given, settings

from solver.heuristics.contiguous import contiguous
from solver.heuristics.greedy import greedy
from solver.heuristics.greedy_equal import greedy_equal
from solver.heuristics.snake import snake
from solver.problem import LayerProblem
from tests.solver.problems import brute_force, layers
from tests.solver.test_bounds import layer_of


@settings(max_examples=80, deadline=None)
@given(layers(max_items=24, max_devices=7))
def test_every_item_is_placed_and_counts_are_kept(layer: LayerProblem) -> None:
    for method in (contiguous, snake, greedy_equal):
        counts = np.bincount(method(layer), minlength=layer.devices)
        assert counts.tolist() == layer.counts.tolist(), method.__name__
    free = greedy(layer)
    assert free.shape == (layer.items,)
    assert ((free >= 0) & (free < layer.devices)).all()
    assert layer.allows(free)


def test_contiguous_keeps_file_order_larger_first() -> None:
    assert contiguous(layer_of([1] * 7, 3)).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_snake_deals_forwards_then_backwards() -> None:
    assert snake(layer_of([6, 5, 4, 3, 2, 1], 2)).tolist() == [0, 1, 1, 0, 0, 1]


def test_greedy_is_longest_processing_time_first() -> None:
    layer = layer_of([3, 3, 2, 2, 2], 2)
    assert sorted(layer.loads(greedy(layer))[0]) == [5.0, 7.0]


@settings(max_examples=60, deadline=None)
@given(layers(max_items=6))
def test_greedy_stays_within_grahams_ratio(layer: LayerProblem) -> None:
    if (
        layer.identical
        and layer.workloads == 1
        and not layer.equal_counts
        and not layer.group_s.any()
    ):
        assert layer.makespan(greedy(layer)) <= (4 / 3) * brute_force(layer) * (1 + 1e-9)


def test_greedy_equal_fills_no_device_beyond_its_count() -> None:
    layer = layer_of([8, 1, 1, 1], 2)
    assert np.bincount(greedy_equal(layer)).tolist() == [2, 2]
    assert np.bincount(greedy(layer)).tolist() == [1, 3]


def test_faster_devices_get_more() -> None:
    layer = layer_of([1.0] * 9, 2, item_s=np.array([[[1.0, 2.0]] * 9]), type_of=np.array([0, 1]))
    assert np.bincount(greedy(layer)).tolist() == [6, 3]


def test_a_scattered_placement_is_charged_for_its_copies() -> None:
    layer = layer_of([1.0] * 4, 2, group_s=np.full((1, 2, 2), 3.0), group_of=np.array([0, 0, 1, 1]))
    assert layer.makespan(np.array([0, 0, 1, 1])) == pytest.approx(5.0)
    assert layer.makespan(np.array([0, 1, 0, 1])) == pytest.approx(8.0)
