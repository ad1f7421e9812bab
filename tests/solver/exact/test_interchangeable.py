"""Classes of items that are exchanged freely: they say the same as the items do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples

from solver.exact.interchangeable import classes_of
from solver.heuristics.greedy import greedy
from solver.problem import LayerProblem
from tests.solver.problems import layers, make_layer


@examples(max_examples=60)
@given(layers(max_items=12, max_devices=4))
def test_classes_and_counts_say_the_same_as_the_placement(layer: LayerProblem) -> None:
    classes = classes_of(layer)
    start = greedy(layer)
    counts = classes.counted(start, layer.devices)
    again = classes.placed(counts)
    assert layer.loads(again) == pytest.approx(layer.loads(start))
    assert (np.bincount(classes.of_item) == classes.quantity).all()
    riding = layer.item_with_charge_s() if layer.additive else layer.item_s
    assert (classes.cost_s[:, classes.of_item] == riding).all()
    if not layer.additive:
        assert (classes.group_of[classes.of_item] == layer.group_of).all()
    if layer.workloads == 1:
        loads = [classes.loads(layer, counts[None, :, d], d)[0] for d in range(layer.devices)]
        assert loads == pytest.approx(layer.loads(start)[0])


def test_items_of_one_cost_and_group_are_one_class() -> None:
    layer = make_layer(12, 4, 3, seed=1, two_valued=True, charge=0.5)
    classes = classes_of(layer)
    assert len(classes.quantity) == len(
        {
            (g, c)
            for g, c in zip(layer.group_of.tolist(), layer.item_s[0, :, 0].tolist(), strict=True)
        }
    )
    free = classes_of(make_layer(12, 4, 3, seed=1, two_valued=True, charge=0.0))
    assert len(free.quantity) == 2
