"""What the lists of a layer held of a batch's rows, head by head, and where these rows lie.

A planner holds it against what a profile promises of just these rows, so that requests of any
length can be told together where they are alike: ranges of positions within a quarter of an octave
are one report of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from executor.attention.query_rows import new_rows
from executor.attention.step import PreparedStep
from executor.inference.slot_steps import Numbers

BINS_AN_OCTAVE = 4
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldRows:
    """[reports] each: `rows` rows of a `head` of the model, at positions from `first` up to
    `last` of their sequences, and the share of their attention mass that lists held: means, by
    rows."""

    head: Numbers
    first: Numbers
    last: Numbers
    rows: Numbers
    recovery: Floats

    @property
    def alike(self) -> "HeldRows":
        """With what is alike as one."""
        edges = (self.first + 1, self.last + 1)
        bins = [np.floor(BINS_AN_OCTAVE * np.log2(edge)).astype(np.int64) for edge in edges]
        keys, place = np.unique(np.stack([self.head, *bins]), axis=1, return_inverse=True)
        place = place.ravel()
        rows = np.bincount(place, self.rows)

        def mean(values: NDArray[np.float64] | Numbers) -> Floats:
            return np.bincount(place, self.rows * values) / rows

        first = np.rint(mean(self.first)).astype(np.int64)
        length = np.maximum(np.rint(mean(self.last - self.first)).astype(np.int64), 1)
        recovery = np.clip(mean(self.recovery), 0.0, 1.0)
        return HeldRows(keys[0], first, first + length, rows.astype(np.int64), recovery)


def watched_rows(
    step: PreparedStep, context: Numbers, heads: Sequence[int | None], recovery: Floats
) -> HeldRows:
    """Of a layer's step of prompts, `recovery` [entries], or of decodes, [entries, widest], as
    `kernels.recovery` estimates it.

    `context` [sequences] are the tokens that each has; `heads` the model's, by the step's numbers.
    """
    found: list[tuple[int | None, int, int, float]] = []
    if step.prefill is not None:
        for part, share in zip(step.prefill.heads, recovery.tolist(), strict=True):
            rows = new_rows(part, step.chunks, step.block_tokens)
            found.append((heads[part.head], rows.start, rows.stop, share))
    elif step.decode is not None:
        for entry, shares in zip(step.decode.lists, recovery.tolist(), strict=True):
            last = int(context[entry.sequence])
            pairs = zip(entry.heads, shares, strict=False)
            found += [(heads[head], last - 1, last, share) for head, share in pairs]
    there = [each for each in found if each[0] is not None and each[1] < each[2]]
    head, first, last_, share = np.array(there, dtype=np.float64).reshape(-1, 4).T
    begin, end = first.astype(np.int64), last_.astype(np.int64)
    return HeldRows(head.astype(np.int64), begin, end, end - begin, share)
