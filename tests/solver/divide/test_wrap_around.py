"""McNaughton's theorem where copies are free, and the rules kept where they are not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.divide.components import by_components
from solver.divide.divided_bounds import bounds_of_workloads, combined, divided_bound
from solver.divide.even_cut import even_cut
from solver.divide.seconds import FULL, Seconds
from solver.divide.wrap_around import fill, wrap_around
from solver.problem import LayerProblem
from solver.shares import Shares
from tests.solver.divide.problems import check as check_shares
from tests.solver.divide.problems import divisible_layers, least_s, make_divisible, reached_s
from tests.solver.problems import soon


def check(layer: LayerProblem, shares: Shares) -> None:
    check_shares(layer, shares)
    assert reached_s(layer, shares) >= divided_bound(layer).seconds


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000))
def test_free_copies_reach_the_mean_with_few_divisions(items: int, devices: int, seed: int) -> None:
    layer = make_divisible(items, 1, devices, seed=seed, charge=0.0, launch=0.1)
    shares = wrap_around(layer, soon(), least_s(layer))
    assert shares is not None
    check(layer, shares)
    mean = layer.launch_s[0, 0] + layer.item_s[0, :, 0].sum() / devices
    np.testing.assert_allclose(reached_s(layer, shares), mean, rtol=3e-6)
    assert len(shares.item) - items <= devices - 1


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000))
def test_devices_of_other_speeds_end_at_once(items: int, devices: int, seed: int) -> None:
    """Uniform machines: the level at which they do all the work together, by their speeds."""
    layer = make_divisible(items, 1, devices, seed=seed, types=3, charge=0.0, launch=0.1)
    shares = wrap_around(layer, soon(), least_s(layer))
    assert shares is not None
    check(layer, shares)
    # Launches are a tenth of the factor by which a device is slower: the slowest may not be worth
    # one.
    slower = layer.launch_s[0] / 0.1
    work = (layer.item_s[0] / slower)[:, 0].sum()
    level = ((work + 0.1 * np.arange(1, devices + 1)) / (1 / np.sort(slower)).cumsum()).min()
    np.testing.assert_allclose(reached_s(layer, shares), level, rtol=3e-6)


def test_unlike_devices_gather_their_groups() -> None:
    """More heads and devices than the program of all pairs is solved for."""
    layer = make_divisible(64, 8, 80, types=2, charge=0.3)
    shares = wrap_around(layer, soon(), least_s(layer))
    assert shares is not None
    check(layer, shares)
    bound = combined(layer, bounds_of_workloads(layer), soon())
    assert reached_s(layer, shares) < 1.1 * bound.seconds
    even = even_cut(layer)
    assert even is not None
    assert reached_s(layer, shares) < 0.8 * reached_s(layer, even)


@settings(max_examples=50)
@given(divisible_layers(types=3))
def test_charges_and_copies_are_obeyed(layer: LayerProblem) -> None:
    shares = wrap_around(layer, soon(), least_s(layer))
    assert shares is not None
    check(layer, shares)


@settings(max_examples=50)
@given(divisible_layers(types=1))
def test_components_obey_them_too(layer: LayerProblem) -> None:
    shares = by_components(layer, soon(), least_s(layer))
    assert shares is not None
    check(layer, shares)


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1]))
def test_a_device_is_looked_at_while_an_item_can_use_it(seed: int, part: float) -> None:
    """What is left of a device after an item is for those to come whose charges are less."""
    layer = make_divisible(24, 2, 40, seed=seed, charge=0.0, part=part, launch=0.0)
    charge = np.random.default_rng(seed).uniform(0.01, 0.5, (1, layer.groups, 1))
    layer = replace(layer, group_s=np.broadcast_to(charge, layer.group_s.shape))
    seconds = Seconds.of(layer)
    level = 1.2 * divided_bound(layer).seconds
    order = list(range(layer.items))
    pieces, unplaced_s = fill(seconds, order, level)
    room, held = np.full(layer.devices, level), np.zeros((layer.groups, layer.devices), dtype=bool)
    expected, missing_s = [], 0.0
    for item in order:
        group, left = layer.group_of[item], seconds.work[item]
        taken = []
        for device in range(layer.devices):
            entry = seconds.part[item] + (0.0 if held[group, device] else seconds.charge[group])
            usable = room[device] - entry
            if usable >= left - FULL * level:
                taken, left = [*taken, (device, left, entry)], 0.0
                break
            if usable > FULL * level:
                taken, left = [*taken, (device, usable, entry)], left - usable
        if left > 0:
            missing_s += left + seconds.part[item] + seconds.charge[group]
            continue
        for device, takes, entry in taken:
            room[device] -= takes + entry
            held[group, device] = True
            expected.append((item, device, takes / seconds.work[item]))
    np.testing.assert_allclose(pieces, expected)
    assert unplaced_s == pytest.approx(missing_s)


def test_two_copies_of_the_largest_item() -> None:
    """An item of 12 and six of 1 on four devices: at most two share the 12, so 6 it is."""
    layer = make_divisible(7, 1, 4, charge=0.0, launch=0.0, max_copies=2)
    layer.item_s[0] = np.array([12.0, 1, 1, 1, 1, 1, 1])[:, None]
    shares = wrap_around(layer, soon(), least_s(layer))
    assert shares is not None
    np.testing.assert_allclose(reached_s(layer, shares), 6, rtol=1e-5)
    assert shares.parts[0] == 2


def test_groups_that_fill_devices_are_not_copied() -> None:
    """Groups of 3 + 1, 2 + 2 and 4 on three devices: no copy is needed, and none is made."""
    layer = make_divisible(6, 2, 3, charge=0.5, launch=0.0)
    layer.item_s[0] = np.array([3.0, 1, 2, 2, 1, 3])[:, None]
    shares = by_components(layer, soon(), least_s(layer))
    assert shares is not None
    assert reached_s(layer, shares) <= 4.5 * (1 + 1e-6)
    assert len(shares.of_groups(layer.group_of)[0]) == 3


@settings(max_examples=20)
@given(st.integers(0, 100), st.sampled_from([0.0, 0.2]))
def test_components_meet_their_bound_without_parts(seed: int, charge: float) -> None:
    layer = make_divisible(32, 4, 4, seed=seed, charge=charge + 0.05, launch=0.1)
    shares = by_components(layer, soon(), least_s(layer))
    assert shares is not None
    assert reached_s(layer, shares) <= divided_bound(layer).seconds * 1.01
