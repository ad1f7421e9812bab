"""Devices of few groups, filled to a level: nothing lost, nothing above it, slots kept."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solver.divide.divided_bounds import divided_bound
from solver.divide.few_groups import fill_slots
from solver.divide.seconds import Seconds
from solver.divide.wrap_around import as_shares, wrap_around
from solver.problem import LayerProblem
from solver.shares import Shares
from tests.solver.divide.problems import make_divisible
from tests.solver.problems import soon

in_slots = st.builds(
    lambda groups, size, devices, seed, charge, part, more: replace(
        make_divisible(groups * size, size, devices, seed=seed, charge=charge, part=part),
        slots=min(-(-groups // devices) + more, groups),
    ),
    st.integers(1, 8),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 8),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 2),
)


@given(in_slots, st.booleans(), st.floats(1.0, 3.0))
def test_what_is_placed_keeps_to_the_level_and_the_slots(
    layer: LayerProblem, smallest: bool, above: float
) -> None:
    level = above * divided_bound(layer).seconds
    pieces, unplaced_s = fill_slots(Seconds.of(layer), level, smallest=smallest)
    placed = np.zeros((layer.items, layer.devices))
    for item, device, share in pieces:
        placed[item, device] += share
    shares = Shares.of(placed)
    assert layer.loads_of_shares(shares).max() <= level * (1 + 1e-6)
    assert layer.within_slots(shares)
    assert (placed.sum(axis=1) <= 1 + 1e-6).all()
    assert unplaced_s > 0 or (placed.sum(axis=1) >= 1 - 1e-6).all()


@given(in_slots)
def test_wrapping_finds_slots_for_every_group(layer: LayerProblem) -> None:
    shares = wrap_around(layer, soon(), divided_bound(layer).seconds)
    assert shares is not None
    assert layer.within_slots(shares)
    np.testing.assert_allclose(shares.dense.sum(axis=1), 1, rtol=1e-9)


def test_a_small_group_and_a_part_of_the_large_one_fill_each_device() -> None:
    """One group of work 13 and three of 1 on four devices of two slots: the mean load of 4."""
    layer = replace(make_divisible(4, 1, 4, charge=0.0, launch=0.0), slots=2)
    work = np.array([13.0, 1.0, 1.0, 1.0])[None, :, None]
    layer = replace(layer, item_s=np.broadcast_to(work, layer.item_s.shape))
    pieces, unplaced_s = fill_slots(Seconds.of(layer), 4.0, smallest=True)
    assert unplaced_s == 0
    shares = as_shares(layer, pieces)
    assert layer.loads_of_shares(shares)[0] == pytest.approx([4.0] * 4)
    assert (np.bincount(shares.device) <= 2).all()
