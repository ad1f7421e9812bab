"""Indices that are slices wherever they can be, which copies nothing."""

from collections.abc import Sequence


def index_of(numbers: Sequence[int]) -> slice | list[int]:
    """An index of `numbers`: a slice where they follow one another.

    >>> index_of([3, 4, 5]), index_of([3, 5])
    (slice(3, 6, None), [3, 5])
    """
    first, end = numbers[0], numbers[-1] + 1
    numbers = list(numbers)
    return slice(first, end) if numbers == list(range(first, end)) else numbers
