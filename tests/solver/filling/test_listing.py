"""All fillings of one device against those that every placement within the makespan has."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from solver.exact.interchangeable import classes_of
from solver.filling.listing import WholeCosts, all_fillings
from solver.problem import LayerProblem
from solver.shares import Ints
from tests.solver.problems import brute_force, make_layer, soon

SCALE = 1e6

identical = st.builds(
    make_layer,
    st.sampled_from([2, 4, 6]),
    st.sampled_from([1, 2]),
    st.integers(2, 3),
    seed=st.integers(0, 10_000),
    equal_counts=st.booleans(),
    charge=st.sampled_from([0.0, 0.5, 3.0]),
    two_valued=st.booleans(),
)


def costs_of(layer: LayerProblem) -> WholeCosts:
    return WholeCosts.of(layer, classes_of(layer), SCALE)


def room_of(layer: LayerProblem, makespan_s: float) -> int:
    """A makespan on the grid, launches apart."""
    return int((makespan_s - float(layer.launch_s[0, 0])) * SCALE * (1 + 1e-9)) + 1


def held(layer: LayerProblem, within_s: float) -> list[Ints]:
    """What a device has in any placement within the makespan, in items of every class."""
    classes = classes_of(layer)
    found = {}
    for choice in product(range(layer.devices), repeat=layer.items):
        placed = np.array(choice)
        if layer.allows(placed) and layer.makespan(placed) <= within_s:
            for row in classes.counted(placed, layer.devices).T:
                found[row.tobytes()] = row
    return list(found.values())


@examples(max_examples=40)
@given(identical, st.sampled_from([1.0, 1.1, 1.5]))
def test_every_placement_within_is_made_of_listed_fillings(
    layer: LayerProblem, factor: float
) -> None:
    within_s = factor * brute_force(layer)
    costs = costs_of(layer)
    listed = all_fillings(costs, room_of(layer, within_s), soon())
    assert listed is not None
    exactly = {row.tobytes() for row in listed}
    for filling in held(layer, within_s * (1 - 1e-9)):
        if layer.equal_counts:
            assert filling.tobytes() in exactly
        else:
            assert (filling <= listed).all(axis=1).any(), "a larger one covers it"


@examples(max_examples=40)
@given(identical, st.sampled_from([0.5, 1.0, 1.3]))
def test_every_filling_is_one_that_a_device_can_do(layer: LayerProblem, factor: float) -> None:
    within_s = factor * brute_force(layer)
    classes = classes_of(layer)
    listed = all_fillings(costs_of(layer), room_of(layer, within_s), soon())
    assert listed is not None
    assert (listed <= classes.quantity).all()
    rounding = (layer.items + layer.groups + 2) / SCALE
    assert (classes.loads(layer, listed, 0) <= within_s + rounding).all()
    assert len(np.unique(listed, axis=0)) == len(listed)
    if layer.equal_counts:
        assert np.isin(listed.sum(axis=1), layer.counts).all()


def test_what_does_most_comes_first() -> None:
    layer = make_layer(6, 1, 2, seed=2, charge=0.0)
    listed = all_fillings(costs_of(layer), room_of(layer, brute_force(layer)), soon())
    assert listed is not None
    loads = classes_of(layer).loads(layer, listed, 0)
    assert (np.diff(loads) <= 2 * layer.items / SCALE).all()


def test_too_many_are_none_as_is_no_time() -> None:
    many = make_layer(64, 1, 4, seed=1, charge=0.0)
    assert all_fillings(costs_of(many), room_of(many, 1e3), soon()) is None
    few = make_layer(4, 1, 2)
    assert all_fillings(costs_of(few), room_of(few, 1e3), soon(-1)) is None
