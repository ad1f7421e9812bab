"""Heads over nodes of devices: few groups cross, and no node needs much more than the others."""

import numpy as np
import pytest

from solver.divide.divide import _starts
from solver.divide.divided_bounds import divided_bound
from solver.divide.over_nodes import _Nodes, _sizes, over_nodes
from tests.solver.divide.problems import check, least_s, make_divisible, reached_s
from tests.solver.problems import soon


def test_nodes_are_balanced_and_few_groups_cross() -> None:
    layer = make_divisible(128, 1, 96, charge=0.0, launch=0.05)
    shares = over_nodes(layer, 8, soon(), least_s(layer))
    assert shares is not None
    check(layer, shares)
    mean = layer.launch_s[0, 0] + layer.item_s[0, :, 0].sum() / 96
    assert reached_s(layer, shares) <= 1.02 * mean
    in_node = (layer.members @ (shares.dense > 0)).reshape(layer.groups, -1, 8).any(axis=2)
    assert in_node.sum() - layer.groups <= 6  # wrap-around alone crosses 11 borders


@pytest.mark.parametrize("seed", range(4))
def test_nodes_that_need_more_swap_groups_with_others(seed: int) -> None:
    layer = make_divisible(64, 1, 192, seed=seed, charge=0.3, launch=0.05)
    bound_s = divided_bound(layer).seconds
    nodes = _Nodes.of(layer, _sizes(layer, bound_s), 8, bound_s, soon())
    assert nodes is not None
    packed_s, packed = nodes.makespan_s, nodes.amounts.copy()
    nodes.even_out(soon())
    assert nodes.makespan_s < 0.99 * packed_s
    # Groups have changed places, and no more of them cross.
    np.testing.assert_array_equal(np.sort(nodes.amounts, axis=0), np.sort(packed, axis=0))
    np.testing.assert_allclose(nodes.amounts.sum(axis=1), 1.0)
    loads = np.zeros(layer.devices)
    for item, device, share in nodes.pieces():
        loads[device] += share * layer.item_s[0, item, device] + 0.3
    assert (loads.reshape(-1, 8).max(axis=1) + 0.05 <= nodes.levels * (1 + 1e-9)).all()


def test_without_time_there_is_nothing() -> None:
    layer = make_divisible(64, 1, 192, charge=0.2)
    assert over_nodes(layer, 8, soon(0.0), least_s(layer)) is None


def test_many_alike_devices_gain_by_being_filled_as_nodes() -> None:
    quick, searched = 0.0, 0.0
    for seed in range(4):
        layer = make_divisible(64, 1, 192, seed=seed, charge=0.3, launch=0.05)
        bound = divided_bound(layer)
        without, within = (
            min(reached_s(layer, shares) for shares in _starts(layer, bound, None, soon(), search))
            for search in (False, True)
        )
        quick, searched = quick + without, searched + within
    assert searched < 0.997 * quick
