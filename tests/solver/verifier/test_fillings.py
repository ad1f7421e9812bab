"""Levels that whole items can be placed within are told from those that they cannot."""

import math
import time
from dataclasses import replace

from hypothesis import given, settings

from solver.verifier.bounds import Instance
from solver.verifier.fillings import reachable
from tests.solver.verifier.instances import instances, optimum


@settings(max_examples=300, deadline=None)
@given(instance=instances())
def test_the_optimum_is_reachable_and_nothing_below_it(instance: Instance) -> None:
    least = optimum(instance)
    uneven = instance.equal_counts and len(instance.whole) % sum(instance.devices)
    above = None if uneven and not instance.identical else True
    assert reachable(instance, least, math.inf) in (True, above)
    below = reachable(instance, least - 1, math.inf)
    assert below is False or (below is None and above is None)


def equal_items(number: int, cost: int, devices: int) -> Instance:
    return Instance(
        whole=((cost,),) * number,
        part=((0,),) * number,
        charge=((0,),) * number,
        group_of=tuple(range(number)),
        launch=(0,),
        devices=(devices,),
        copies=1,
        equal_counts=False,
    )


def test_equal_items_by_the_hundred() -> None:
    many = equal_items(1000, 7, 33)
    assert reachable(many, 7 * 31, math.inf) is True
    assert reachable(many, 7 * 31 - 1, math.inf) is False


def test_groups_that_cannot_stay_together() -> None:
    """2 groups of 3 items of 2, on 3 devices: 3 x 2 items and 4 charges, or 5 + 2 + ..."""
    instance = replace(equal_items(6, 2, 3), charge=((1,), (1,)), group_of=(0, 0, 0, 1, 1, 1))
    assert optimum(instance) == 6
    assert reachable(instance, 6, math.inf) is True
    assert reachable(instance, 5, math.inf) is False


def test_out_of_time_is_not_known() -> None:
    costs = [(997 + 31 * item**2 % 101,) for item in range(60)]
    instance = replace(equal_items(60, 0, 9), whole=tuple(costs))
    level = sum(cost for (cost,) in costs) // 9
    assert reachable(instance, level, time.monotonic() - 1) is None


def test_what_is_too_large_is_not_tried() -> None:
    unlike = replace(equal_items(200, 0, 9), whole=tuple((cost,) for cost in range(200)))
    assert reachable(unlike, 10**6, math.inf) is None
    assert reachable(equal_items(600, 1, 500), 1, math.inf) is None
