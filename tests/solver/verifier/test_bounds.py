"""Simple bounds are bounds: never above the optimum found by trying everything."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.divide.linear_program import best_shares
from solver.divide.weighted_mean import weighted_mean
from solver.divide.wrap_around import wrap_around
from solver.verifier.bounds import Instance, Scale, named_bounds, simple_bound
from tests.solver.divide.problems import make_divisible, reached_s
from tests.solver.problems import soon
from tests.solver.verifier.instances import divided_optimum, instances, optimum

ABOVE = 10**6


@settings(max_examples=200, deadline=None)
@given(instance=instances())
def test_no_simple_bound_is_above_the_optimum(instance: Instance) -> None:
    least = optimum(instance)
    assert max(named_bounds(instance).values()) <= least
    assert simple_bound(instance, ABOVE, math.inf)[0] <= least


@settings(max_examples=120, deadline=None)
@given(
    instance=instances(most_items=5, most_types=1),
    repeated=st.lists(st.fractions(0, 1), min_size=5, max_size=5),
    copies=st.integers(1, 2),
)
def test_no_simple_bound_is_above_the_optimum_of_divided_items(
    instance: Instance, repeated: list[float], copies: int
) -> None:
    parts = tuple(
        (int(whole * share),) for (whole,), share in zip(instance.whole, repeated, strict=False)
    )
    divided = replace(instance, part=parts, copies=copies, devices=(2,), equal_counts=False)
    least = divided_optimum(divided)
    assert max(named_bounds(divided).values()) <= least
    assert simple_bound(divided, ABOVE, math.inf)[0] <= least


def identical(costs: list[int], charges: list[int], size: int, devices: int) -> Instance:
    """Groups of `size` items that may be divided."""
    return Instance(
        whole=tuple((cost,) for cost in costs),
        part=((0,),) * len(costs),
        charge=tuple((charge,) for charge in charges),
        group_of=tuple(item // size for item in range(len(costs))),
        launch=(0,),
        devices=(devices,),
        copies=devices,
        equal_counts=False,
    )


@pytest.mark.parametrize(
    ("instance", "proved", "name"),
    [
        # 3 x 9 on 3 devices, nothing beside it.
        (identical([9, 9, 9], [0, 0, 0], 1, 3), 9, "mean load"),
        # 30 of work in one group, which is charged on all 3 devices: 10 + 6.
        (identical([10, 10, 10], [6], 3, 3), 16, "mean load with the copies it forces"),
        # 3 groups that share 2 devices make one copy: (3 * (10 + 2) + 2) / 2.
        (identical([10, 10, 10], [2, 2, 2], 1, 2), 19, "mean loads of components"),
    ],
)
def test_what_the_simple_bounds_prove(instance: Instance, proved: int, name: str) -> None:
    scaled = Scale(100.0)
    found, by = simple_bound(_in_units(instance, scaled), scaled.units(50.0), math.inf)
    assert scaled.seconds(found) == pytest.approx(proved, rel=1e-6)
    assert by == name


def _in_units(instance: Instance, scale: Scale) -> Instance:
    """Of an instance in seconds."""

    def units(rows: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(scale.units(seconds) for seconds in row) for row in rows)

    return replace(
        instance,
        whole=units(instance.whole),
        part=units(instance.part),
        charge=units(instance.charge),
        launch=units((instance.launch,))[0],
    )


def test_unlike_devices_are_weighted() -> None:
    """10 items of 1 s on one device and 4 s on the other: 8 s with 8 and 2 of them."""
    scale = Scale(8.0)
    instance = Instance(
        whole=((scale.units(1.0), scale.units(4.0)),) * 10,
        part=((0, 0),) * 10,
        charge=((0, 0),) * 10,
        group_of=tuple(range(10)),
        launch=(0, 0),
        devices=(1, 1),
        copies=2,
        equal_counts=False,
    )
    found, name = simple_bound(instance, scale.units(8.0) - 10)
    assert scale.seconds(found) == pytest.approx(8.0, rel=1e-9)
    assert name == "weighted mean load"


def test_unlike_devices_force_copies() -> None:
    """Work of 12 s and a charge of 1 s on two devices: both pay it, half of it is no presence."""
    scale = Scale(7.0)
    alike = identical([12], [1], 1, 2)
    twice = replace(
        alike, whole=((12, 12),), part=((0, 0),), charge=((1, 1),), launch=(0, 0), devices=(1, 1)
    )
    twice = _in_units(twice, scale)
    found, name = simple_bound(twice, scale.units(7.0) - 10)
    assert scale.seconds(found) == pytest.approx(7.0, rel=1e-9)
    assert found < scale.units(7.0)
    assert name == "weighted mean load with the copies it forces"
    assert simple_bound(twice, scale.units(7.1))[0] < scale.units(7.0)


@pytest.mark.parametrize("charge", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(8))
def test_what_the_solver_says_of_unlike_devices_is_proved_again(seed: int, charge: float) -> None:
    layer = make_divisible(16, 4, 12, seed=seed, types=3, charge=charge, part=0.05)
    said = weighted_mean(layer, soon())
    filled = wrap_around(layer, soon(), said.seconds)
    assert filled is not None
    shares = best_shares(layer, filled, soon())
    assert shares is not None
    _, first, count = np.unique(layer.type_of, return_index=True, return_counts=True)
    scale = Scale(reached_s(layer, shares))
    instance = Instance(
        whole=layer.item_s[0][:, first].tolist(),
        part=layer.part_s[0][:, first].tolist(),
        charge=layer.group_s[0][:, first].tolist(),
        group_of=tuple(layer.group_of.tolist()),
        launch=layer.launch_s[0, first].tolist(),
        devices=tuple(count.tolist()),
        copies=layer.devices,
        equal_counts=False,
    )
    instance, goal = _in_units(instance, scale), scale.units(said.seconds)
    assert simple_bound(instance, goal)[0] >= goal
    # Nor more of anything than what a placement reaches.
    assert simple_bound(instance, scale.units(2 * scale.makespan_s))[0] <= (
        scale.units(scale.makespan_s) * (1 + 1e-9)
    )


def test_seconds_are_rounded_down() -> None:
    scale = Scale(0.3)
    assert scale.seconds(scale.units(0.1)) <= 0.1
    assert scale.seconds(scale.units(0.1)) == pytest.approx(0.1, rel=1e-14)
    assert Scale(0.0).units(0.1) == 0
    assert Scale(1e-300).units(1e15) < 1 << 100
