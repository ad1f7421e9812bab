import time
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings

from solver.placement.contiguous import contiguous
from solver.placement.enumeration import enumerated
from solver.placement.exact import Deadline
from solver.problem import LayerProblem
from tests.solver.problems import brute_force, layers, make_layer, soon


@settings(max_examples=60, deadline=None)
@given(layers(max_items=6))
def test_finds_and_proves_the_optimum(layer: LayerProblem) -> None:
    found = enumerated(layer, contiguous(layer), soon())
    assert found is not None
    assert found.assignment is not None
    optimum = brute_force(layer)
    assert layer.allows(found.assignment)
    assert layer.makespan(found.assignment) == pytest.approx(optimum)
    assert found.lower_bound_s <= optimum * (1 + 1e-12)
    assert found.lower_bound_s == pytest.approx(optimum, rel=1e-6)


def test_eight_groups_on_eight_devices_for_many_workloads() -> None:
    layer = make_layer(8, 1, 8, seed=1, workloads=14)
    found = enumerated(layer, contiguous(layer), soon())
    assert found is not None
    assert found.assignment is not None
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
    found = enumerated(layer, crowded, soon())
    assert found is not None
    assert found.assignment is not None
    assert layer.makespan(crowded) == layer.makespan(found.assignment) == 10
    assert sorted(layer.loads(found.assignment)[0]) == [5, 5, 10]


def test_gives_up_on_large_layers_and_late_deadlines() -> None:
    large = make_layer(32, 1, 4)
    assert enumerated(large, contiguous(large), soon()) is None
    crowded = make_layer(14, 1, 7, workloads=3)
    assert enumerated(crowded, contiguous(crowded), soon()) is None
    small = make_layer(6, 1, 3)
    late = Deadline(time.monotonic() - 1, Event())
    assert enumerated(small, contiguous(small), late) is None
