"""No bound is ever above the optimum, and each proof is the best one somewhere."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from solver.bounds import lower_bound, quick_bound, quick_bounds
from solver.problem import LayerProblem
from tests.solver.problems import alike, brute_force, layers, make_layer


@settings(max_examples=120, deadline=None)
@given(layers())
def test_never_above_the_optimum(layer: LayerProblem) -> None:
    assert lower_bound(layer).seconds <= brute_force(layer) * (1 + 1e-9)


@given(layers(max_items=40, max_devices=9))
def test_layers_bounded_at_once_are_bounded_the_very_same(layer: LayerProblem) -> None:
    every = alike(layer)
    assert quick_bounds(every) == [quick_bound(each) for each in every]


def layer_of(costs: list[float], devices: int, **changes: object) -> LayerProblem:
    items = len(costs)
    item_s = np.repeat(np.array(costs)[None, :, None], devices, axis=2)
    fields: dict[str, object] = {
        "item_s": item_s,
        "part_s": np.zeros_like(item_s),
        "group_s": np.zeros((1, items, devices)),
        "launch_s": np.zeros((1, devices)),
        "weights": np.ones(1),
        "group_of": np.arange(items),
        "type_of": np.zeros(devices, dtype=np.int64),
    }
    return LayerProblem(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "proof", "seconds"),
    [
        (layer_of([9, 1, 1], 2), "largest item", 9.0),
        (layer_of([1] * 8, 2), "mean load", 4.0),
        (layer_of([5, 5, 5], 2), "pigeonhole", 10.0),
        (
            layer_of([8, 2, 2, 2], 2, equal_counts=True),
            "largest item among equal counts",
            10.0,
        ),
        (
            # A group of 16 s of work fills 4 devices, each of which pays its charge of 2.
            layer_of(
                [2.0] * 8 + [0.001],
                4,
                group_s=np.array([[[2.0] * 4, [0.0] * 4]]),
                group_of=np.array([0] * 8 + [1]),
            ),
            "mean load with the copies it forces",
            6.0,
        ),
    ],
)
def test_each_proof_has_its_case(layer: LayerProblem, proof: str, seconds: float) -> None:
    bound = lower_bound(layer)
    assert bound.proof == proof
    assert bound.seconds == pytest.approx(seconds, rel=1e-4)


def test_unlike_devices_count_on_the_fastest() -> None:
    layer = layer_of(
        [1.0] * 6,
        2,
        item_s=np.array([[[1.0, 2.0]] * 6]),
        type_of=np.array([0, 1]),
    )
    bound = lower_bound(layer)
    assert bound.proof == "mean of fastest devices"
    assert bound.seconds == pytest.approx(3.0)


def test_launch_is_part_of_every_bound() -> None:
    layer = make_layer(8, 1, 2, charge=0.0)
    slower = replace(layer, launch_s=layer.launch_s + 1)
    difference = lower_bound(slower).seconds - lower_bound(layer).seconds
    assert difference == pytest.approx(1.0)
