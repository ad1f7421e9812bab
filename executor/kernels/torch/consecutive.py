"""Indices that are slices wherever they can be, which copies nothing."""

from collections.abc import Sequence


def index_of(numbers: Sequence[int]) -> slice | list[int]:
    """An index of `numbers`: a slice where they follow one another.

    >>> index_of([3, 4, 5]), index_of([3, 5])
    (slice(3, 6, None), [3, 5])
    """
    found = range_of(numbers)
    return list(numbers) if found is None else slice(found.start, found.stop)


def range_of(numbers: Sequence[int]) -> range | None:
    """The range that `numbers`, at least one, are, if they follow one another."""
    found = range(numbers[0], numbers[-1] + 1)
    return found if list(found) == list(numbers) else None
