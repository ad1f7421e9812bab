"""Shares as parts are what the same is as an array."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from solver.shares import Floats, Shares


@st.composite
def arrays(draw: st.DrawFn) -> Floats:
    """Items on at least one device each, rows that add up to 1."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    dense = np.where(rng.random(shape) < 0.5, 0.0, rng.random(shape))
    dense[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = 1
    return np.asarray(dense / dense.sum(axis=1, keepdims=True))


@given(arrays())
def test_figures_are_those_of_the_array(dense: Floats) -> None:
    shares = Shares.of(dense)
    np.testing.assert_array_equal(shares.dense, dense)
    np.testing.assert_array_equal(shares.assignment, dense.argmax(axis=1))
    np.testing.assert_array_equal(shares.parts, (dense > 0).sum(axis=1))
    np.testing.assert_allclose(shares.amounts(), dense.sum(axis=0))
    even = (dense > 0) / (dense > 0).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(shares.even().dense, even)
    assert shares.divided == bool((dense.max(axis=1) < 1).any())


@given(arrays(), st.integers(0, 1000))
def test_items_and_devices_in_another_order(dense: Floats, seed: int) -> None:
    rng = np.random.default_rng(seed)
    items, devices = dense.shape
    taken, order = rng.integers(0, items, 4), rng.permutation(devices)
    shares = Shares.of(dense)
    assert shares.rows(taken).equals(Shares.of(dense[taken]))
    assert shares.dealt(order).equals(Shares.of(dense[:, order]))
    group_of = rng.integers(0, 3, items)
    present = [(dense[group_of == group] > 0).any(axis=0) for group in range(3)]
    np.testing.assert_array_equal(shares.of_groups(group_of), np.nonzero(present))


@given(arrays(), st.integers(0, 1000))
def test_parts_in_any_order_are_added_up_and_noise_is_left_out(dense: Floats, seed: int) -> None:
    item, device = np.nonzero(dense)
    share = dense[item, device]
    first = np.random.default_rng(seed).random(len(share)) * share
    order = np.random.default_rng(seed).permutation(2 * len(share))
    parts = (np.tile(item, 2), np.tile(device, 2), np.concatenate([first, share - first]))
    found = Shares.cleaned(*(part[order] for part in parts), *dense.shape)
    np.testing.assert_allclose(found.dense, dense, rtol=1e-12)
    noisy = Shares.cleaned([0, 0, 1], [0, 1, 1], [1.0, 1e-12, 0.5], 2, 2)
    assert noisy.equals(Shares.whole(np.array([0, 1]), 2))


@given(arrays(), st.integers(0, 1000))
def test_what_is_common_is_the_smaller_of_both_shares(dense: Floats, seed: int) -> None:
    other = dense[:, np.random.default_rng(seed).permutation(dense.shape[1])]
    common = Shares.of(dense).common(Shares.of(other))
    np.testing.assert_allclose(common, np.minimum(dense, other).sum(), rtol=1e-12)
