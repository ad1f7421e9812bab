"""The cut that is there whatever the deadline: whole items, and no more copies than allowed."""

import numpy as np
from hypothesis import given

from solver.divide.even_cut import even_cut
from solver.problem import LayerProblem
from tests.solver.divide.problems import check, divisible_layers, make_divisible, reached_s


@given(divisible_layers())
def test_whole_items_on_as_many_devices_as_allowed(layer: LayerProblem) -> None:
    shares = even_cut(layer)
    assert (shares is None) == ((layer.max_copies or layer.devices) == 1)
    if shares is not None:
        check(layer, shares)


@given(divisible_layers(types=1, workloads=1))
def test_no_device_has_more_than_its_part_of_the_work(layer: LayerProblem) -> None:
    shares = even_cut(layer)
    if shares is None or layer.max_copies is not None:
        return
    work_s = layer.item_s[0, :, 0]
    total_s = work_s.sum() + layer.group_s[0, :, 0].sum()
    assert (work_s @ shares.dense).max() <= total_s / layer.devices * (1 + 1e-9)


def test_without_charges_it_is_the_mean_load() -> None:
    layer = make_divisible(6, 2, 4, charge=0.0, launch=0.0)
    shares = even_cut(layer)
    assert shares is not None
    mean_s = layer.item_s[0, :, 0].sum() / layer.devices
    np.testing.assert_allclose(reached_s(layer, shares), mean_s)
    assert len(shares.item) - layer.items <= layer.devices - 1


def test_devices_far_more_than_items() -> None:
    layer = make_divisible(8, 1, 96, charge=0.01, launch=0.01)
    shares = even_cut(layer)
    assert shares is not None
    mean_s = layer.loads_of_shares(shares).mean()
    assert reached_s(layer, shares) < 1.5 * mean_s
    assert layer.makespan(np.arange(8)) > 10 * mean_s
