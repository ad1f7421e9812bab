"""A head's entries in a plan as ranges of its rows: the first entry's come first."""

from collections.abc import Sequence
from itertools import accumulate

from executor.errors import ShardError
from solver.plans import Entry

SHARE_TOLERANCE = 1e-6
Range = tuple[float, float]
"""Of cumulative shares, in [0, 1]."""


def row_ranges(entries: Sequence[Entry], layer: int, head: int) -> list[Range]:
    """The rows of every entry of a head; together exactly [0, 1)."""
    ends = list(accumulate(entry.share for entry in entries))
    if not ends or abs(ends[-1] - 1) > SHARE_TOLERANCE:
        total = ends[-1] if ends else 0
        raise ShardError(f"layer {layer}, head {head}: shares add to {total}, they must add to 1")
    ends[-1] = 1.0
    return list(zip([0.0, *ends[:-1]], ends, strict=True))
