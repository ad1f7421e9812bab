"""Costs in whole numbers: never above the seconds, and exact where they are whole already."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solver.integers import scale_of, seconds_of, whole
from solver.shares import Floats

costs = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=50).map(np.array)
levels = st.sampled_from([100, 50_000, 10_000_000])


@given(costs, levels, st.booleans(), st.integers(0, 1000))
def test_what_a_sum_of_whole_numbers_proves_is_never_above_the_sum_of_seconds(
    seconds: Floats, most: int, parts: bool, seed: int
) -> None:
    scale = scale_of(seconds, float(seconds.sum()), most, parts=parts)
    chosen = np.random.default_rng(seed).random(len(seconds)) < 0.5
    assert seconds_of(int(whole(seconds, scale)[chosen].sum()), scale) <= seconds[chosen].sum()


@given(costs, levels, st.booleans())
def test_there_are_no_more_levels_than_asked_for_and_hardly_fewer_than_half(
    seconds: Floats, most: int, parts: bool
) -> None:
    total = float(seconds.sum())
    scale = scale_of(seconds, total, most, parts=parts)
    assert scale * total <= most * (1 + 1e-9)
    exact = scale == 1.0 and (seconds == np.rint(seconds)).all()
    # The commonest cost may be put on the whole number next to it.
    values, times = np.unique(seconds, return_counts=True)
    moved = total / values[times.argmax()] / 2
    assert exact or scale * total >= (most / 2 - moved) * (1 - 1e-9)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=100).filter(any))
def test_whole_numbers_stay_what_they_are(numbers: list[int]) -> None:
    seconds = np.array(numbers, dtype=float)
    assert scale_of(seconds, float(seconds.sum()), 50_000) == 1.0
    assert whole(seconds, 1.0).tolist() == numbers


def test_whole_numbers_that_are_too_large_are_rounded_down() -> None:
    seconds = np.array([10.0**9, 2 * 10.0**9 + 1])
    scale = scale_of(seconds, float(seconds.sum()), 1000)
    assert scale * seconds.sum() <= 1000
    assert (whole(seconds, scale) <= seconds * scale).all()


@pytest.mark.parametrize("unit", [0.37, 1e-5, 1 / 3])
@pytest.mark.parametrize("multiples", [[3, 5, 7], [1, 2], [11]])
def test_of_few_values_next_to_nothing_is_rounded_away(unit: float, multiples: list[int]) -> None:
    seconds = unit * np.repeat(np.array(multiples, dtype=float), 40)
    scale = scale_of(seconds, float(seconds.sum()), 50_000)
    lost = seconds.sum() - whole(seconds, scale).sum() / scale
    assert lost + 1e-9 * seconds.sum() >= 0
    assert lost <= 1e-4 * seconds.sum()


def test_a_cost_just_below_a_whole_number_counts_as_that_number() -> None:
    third = np.array([1 / 3])
    assert whole(third, 3.0).tolist() == [1]
    assert whole(np.array([0.1 + 0.2]), 10.0).tolist() == [3]
    assert whole(np.array([2.9999]), 1.0).tolist() == [2]


def test_parts_of_whole_numbers_are_put_on_a_finer_grid() -> None:
    seconds = np.array([3.0, 4.0])
    assert scale_of(seconds, 7.0, 50_000) == 1.0
    assert scale_of(seconds, 7.0, 50_000, parts=True) > 1000
