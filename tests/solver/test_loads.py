"""Loads of shares: what the formula of `solver.problem` says, term by term."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solver.problem import LayerProblem, loads_of_layers
from solver.shares import Floats, Shares
from tests.solver.divide.problems import divisible_layers
from tests.solver.problems import alike


def written_out(layer: LayerProblem, shares: Floats, workload: int) -> list[float]:
    loads = []
    for device in range(layer.devices):
        has = [item for item in range(layer.items) if shares[item, device] > 0]
        load_s = float(layer.launch_s[workload, device]) if has else 0.0
        for item in has:
            share = shares[item, device]
            whole_s = layer.item_s[workload, item, device]
            load_s += share * whole_s + (1 - share) * layer.part_s[workload, item, device]
        groups = {int(layer.group_of[item]) for item in has}
        loads.append(load_s + sum(layer.group_s[workload, group, device] for group in groups))
    return loads


def drawn(seed: int, shape: tuple[int, ...]) -> Floats:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.6, 0.0, rng.random(shape))


@given(divisible_layers(), st.integers(0, 10_000))
def test_loads_of_shares_are_the_formulas(layer: LayerProblem, seed: int) -> None:
    every = drawn(seed, (layer.workloads, layer.items, layer.devices))
    alike = layer.loads_of_shares(Shares.of(every[0]))
    own = layer.loads_of_each([Shares.of(each) for each in every])
    for workload in range(layer.workloads):
        assert alike[workload] == pytest.approx(written_out(layer, every[0], workload))
        assert own[workload] == pytest.approx(written_out(layer, every[workload], workload))


@given(divisible_layers(), st.integers(0, 10_000))
def test_loads_of_whole_items_are_those_of_their_shares(layer: LayerProblem, seed: int) -> None:
    assignment = np.random.default_rng(seed).integers(0, layer.devices, layer.items)
    whole = layer.loads_of_shares(layer.whole(assignment))
    np.testing.assert_allclose(layer.loads(assignment), whole, rtol=1e-12)


@given(divisible_layers(), st.integers(0, 10_000))
def test_layers_added_up_at_once_come_to_the_very_same(layer: LayerProblem, seed: int) -> None:
    layers = alike(layer)
    every = drawn(seed, (len(layers), layer.items, layer.devices))
    # The first is divided, as a rule; the last has whole items.
    shares = [*map(Shares.of, every[:-1]), layer.whole(every[-1].argmax(axis=1))]
    at_once = loads_of_layers(layers, shares)
    each = [one.loads_of_shares(own) for one, own in zip(layers, shares, strict=True)]
    np.testing.assert_array_equal(at_once, np.stack(each, axis=1))
