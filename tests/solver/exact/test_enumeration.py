import time
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings

from solver.deadline import Deadline
from solver.exact.enumeration import enumerate_placements
from solver.heuristics.contiguous import contiguous
from solver.problem import LayerProblem
from tests.solver.problems import brute_force, layers, make_layer, soon, started


@settings(max_examples=60, deadline=None)
@given(layers(max_items=6))
def test_finds_and_proves_the_optimum(layer: LayerProblem) -> None:
    found = enumerate_placements(layer, started(layer, contiguous(layer)), soon())
    optimum = brute_force(layer)
    assert layer.allows(found.assignment)
    assert layer.makespan(found.assignment) == pytest.approx(optimum)
    assert found.bound.seconds <= optimum * (1 + 1e-12)
    assert found.bound.seconds == pytest.approx(optimum, rel=1e-6)


def test_eight_groups_on_eight_devices_for_many_workloads() -> None:
    layer = make_layer(8, 1, 8, seed=1, workloads=14)
    found = enumerate_placements(layer, started(layer, contiguous(layer)), soon())
    # With nothing to share, every group is best alone.
    assert sorted(found.assignment) == list(range(8))


def test_of_equals_it_takes_the_flattest() -> None:
    layer = LayerProblem(
        item_s=np.repeat([[10.0], [4.0], [3.0], [2.0], [1.0]], 3, axis=1)[None],
        part_s=np.zeros((1, 5, 3)),
        group_s=np.zeros((1, 5, 3)),
        launch_s=np.zeros((1, 3)),
        weights=np.ones(1),
        group_of=np.arange(5),
        type_of=np.zeros(3, dtype=np.int64),
    )
    crowded = np.array([0, 1, 1, 1, 1])
    found = enumerate_placements(layer, started(layer, crowded), soon())
    assert layer.makespan(crowded) == layer.makespan(found.assignment) == 10
    assert sorted(layer.loads(found.assignment)[0]) == [5, 5, 10]


def test_gives_up_on_large_layers_and_late_deadlines() -> None:
    late = Deadline(time.monotonic() - 1, Event())
    large, crowded = make_layer(32, 1, 4), make_layer(14, 1, 7, workloads=3)
    for layer, until in ((large, soon()), (crowded, soon()), (make_layer(6, 1, 3), late)):
        known = started(layer, contiguous(layer))
        assert enumerate_placements(layer, known, until) is known
