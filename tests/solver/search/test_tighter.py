"""What is found under tighter rules is never lost under looser ones."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from solver.problem import LayerProblem
from solver.search.starts import start, tighter
from solver.search.steps import descend_from_starts
from tests.solver.problems import layers, make_layer, soon, started


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers(max_items=9))
def test_starts_and_descents_are_no_worse_than_those_of_tighter_rules(layer: LayerProblem) -> None:
    [free] = start([layer], "auto", 0.0, soon())
    deeper = descend_from_starts(layer, free, soon(), lambda _: None)
    for tight in tighter(layer):
        [own] = start([tight], "auto", 0.0, soon())
        own_deeper = descend_from_starts(tight, own, soon(), lambda _: None)
        found = own_deeper.assignment
        placed = found if tight.items == layer.items else found[layer.group_of]
        if layer.allows(placed):
            assert free.makespan_s <= own.makespan_s * (1 + 1e-9)
            assert deeper.makespan_s <= own_deeper.makespan_s * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_with_slots_is_seeded_by_whole_groups_in_slots(seed: int) -> None:
    layer = make_layer(12, 3, 3, seed=seed, slots=2)
    [by_group] = tighter(layer)
    assert by_group.slots == 2
    [free] = start([layer], "auto", 0.0, soon())
    assert layer.within_slots(free.shares)
    equal = tighter(replace(layer, slots=None))[-1]
    assert equal.equal_counts
    assert started(layer, free.assignment).makespan_s == pytest.approx(free.makespan_s)
