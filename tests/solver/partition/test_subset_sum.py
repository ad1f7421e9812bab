"""Meeting in the middle against all subsets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from solver.partition.subset_sum import between, chosen, heaviest, nearest

WEIGHTS = st.lists(st.integers(0, 50), max_size=8)


def sums(weights: list[int]) -> list[int]:
    return [
        sum(w for i, w in enumerate(weights) if bits >> i & 1) for bits in range(2 ** len(weights))
    ]


@given(WEIGHTS, st.integers(0, 120))
def test_heaviest_and_nearest(weights: list[int], target: int) -> None:
    array = np.array(weights, dtype=np.int64)
    found = heaviest(array, target)
    assert found is not None
    assert found[0] == max(s for s in sums(weights) if s <= target) == sums(weights)[found[1]]
    reached, bits = nearest(array, target)
    assert abs(reached - target) == min(abs(s - target) for s in sums(weights))
    assert reached == sums(weights)[bits] == array[chosen(bits, len(weights))].sum()


def test_nothing_fits_below_zero() -> None:
    assert heaviest(np.array([1, 2]), -1) is None


@given(WEIGHTS, st.integers(0, 120), st.integers(0, 30))
def test_between_finds_all_subsets_or_as_many_as_asked(
    weights: list[int], least: int, more: int
) -> None:
    array, random = np.array(weights, dtype=np.int64), np.random.default_rng(0)
    within = [b for b, s in enumerate(sums(weights)) if least <= s <= least + more]
    assert sorted(between(array, least, least + more, 1000, random)) == within
    few = between(array, least, least + more, 2, random)
    assert set(few) <= set(within)
    assert min(len(within), 1) <= len(few) <= 2
