"""Subset sums by meeting in the middle, for up to `MOST_JOBS` jobs of any magnitude.

Horowitz & Sahni 1974, "Computing partitions with applications to the knapsack problem": all sums
of each half are made, one half's are sorted, and every sum of the other half looks up its partner.
"""

import numpy as np

from solver.problem import Ints

MOST_JOBS = 22
"""Jobs up to which the two halves (2,048 sums each) take well under a millisecond."""


def heaviest(weights: Ints, limit: int) -> tuple[int, int] | None:
    """The largest subset sum at most `limit`, and its jobs as bits; None where there is none."""
    low, high, order = _halves(weights)
    partner = np.searchsorted(high, limit - low, side="right") - 1
    sums = np.where(partner >= 0, low + high[partner], -1)
    best = int(sums.argmax())
    if sums[best] < 0:
        return None
    return int(sums[best]), _bits(best, int(order[partner[best]]), len(weights))


def nearest(weights: Ints, target: int) -> tuple[int, int]:
    """The subset sum nearest to `target`, the larger of two, and its jobs as bits."""
    low, high, order = _halves(weights)
    above = np.minimum(np.searchsorted(high, target - low, side="left"), len(high) - 1)
    below = np.maximum(above - 1, 0)
    sums = np.stack((low + high[above], low + high[below]))
    best = int(np.abs(sums - target).argmin())
    row, of_low = divmod(best, len(low))
    of_high = int(order[(above, below)[row][of_low]])
    return int(sums[row, of_low]), _bits(of_low, of_high, len(weights))


def between(
    weights: Ints, least: int, most: int, limit: int, random: np.random.Generator
) -> list[int]:
    """Up to `limit` random subsets, as bits, with a sum in [least, most]: all if no more exist."""
    low, high, order = _halves(weights)
    first = np.searchsorted(high, least - low, side="left")
    last = np.searchsorted(high, most - low, side="right")
    reached = np.cumsum(np.maximum(last - first, 0))
    total = int(reached[-1])
    ranks = np.unique(random.integers(0, total, limit)) if total > limit else np.arange(total)
    of_low = np.searchsorted(reached, ranks, side="right")
    of_high = order[last[of_low] - (reached[of_low] - ranks)]
    found = [_bits(int(i), int(j), len(weights)) for i, j in zip(of_low, of_high, strict=True)]
    random.shuffle(found)
    return found


def chosen(bits: int, jobs: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which jobs a subset's bits stand for, `[jobs]`."""
    return np.asarray((bits >> np.arange(jobs)) & 1, dtype=bool)


def _bits(of_low: int, of_high: int, jobs: int) -> int:
    return of_low | of_high << (jobs // 2)


def _halves(weights: Ints) -> tuple[Ints, Ints, Ints]:
    """Sums of the first half by bits; of the second in ascending order, and their bits."""
    middle = len(weights) // 2
    low, high = _sums(weights[:middle]), _sums(weights[middle:])
    order = np.argsort(high)
    return low, high[order], order


def _sums(weights: Ints) -> Ints:
    """Sums of all subsets, `[2 ** jobs]`, in the order of their bits."""
    sums = np.zeros(1, dtype=np.int64)
    for weight in weights:
        sums = np.concatenate((sums, sums + weight))
    return sums
