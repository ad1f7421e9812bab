"""What an engine's heads recover of rows of any context, beside what the profile promises of these.

Judged by phase and by powers of two of the context, each by itself: in a mean over all of them the
many short requests would hide what long ones lose. Within one, promise and observation are means
over the same reports with the same weights, their rows. Rows whose budget covers their context
lose nothing by construction, and are left out: they prove nothing of the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.loop.drift import Floats, Kind, Mask, ObservedRecovery, PromisedRecovery
from profiles.cost.work import Phase

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EngineRows:
    """Reports of rows of heads, [reports] each: `rows` rows at positions from `first` up to `last`
    of sequences recovered `recovery`, a mean, where the profile promised `promised` (NaN until that
    is known).

    `batch` and `node` number where they came from.
    """

    batch: Ints
    node: Ints
    prefill: Mask
    layer: Ints
    head: Ints
    first: Ints
    last: Ints
    rows: Ints
    recovery: Floats
    promised: Floats

    def only(self, chosen: Mask) -> "EngineRows":
        """Some of them."""
        return EngineRows(**{name: column[chosen] for name, column in vars(self).items()})

    def kinds(self) -> Mapping[Kind, Mask]:
        """The reports of each phase and power of two of the context, [reports]."""
        power = np.ceil(np.log2(self.last)).astype(np.int64)
        found = {}
        for prefill in (True, False):
            phase: Phase = "prefill" if prefill else "decode"
            of_phase = self.prefill == prefill
            for one in np.unique(power[of_phase]).tolist():
                found[Kind(phase, 2**one)] = of_phase & (power == one)
        return found

    def mean_last(self) -> float:
        """Of the contexts, by rows."""
        return float(np.average(self.last, weights=self.rows))


def means(seen: EngineRows, shape: tuple[int, int]) -> tuple[PromisedRecovery, ObservedRecovery]:
    """Of every head, [layers, heads] of `shape`, over the rows that are reported of it; NaN where
    none are.

    A round is a batch of the node with the most: two that divide a head see the same requests. What
    an engine's heads recover scatters more than a profile's prompts do, for few rows are looked
    at. So the mean's standard error is also taken from how far batches lie apart: of the head, or
    of all heads together where these scatter more, for of two or three batches a head's own says
    little.
    """
    place = np.ravel_multi_index((seen.layer, seen.head), shape)
    size = shape[0] * shape[1]

    def total(values: Floats, at: Ints = place, length: int = size) -> Floats:
        return np.bincount(at, values, length).astype(np.float64)

    rows = seen.rows.astype(np.float64)
    weight = total(rows)
    with np.errstate(invalid="ignore"):
        promised, observed = (total(rows * x) / weight for x in (seen.promised, seen.recovery))
    # What each batch of a node says of a head, as one: its rows, and what they miss in all.
    numbers, number = np.unique(seen.batch, return_inverse=True)
    grid = size, int(seen.node.max(initial=0)) + 1, len(numbers)
    each = np.ravel_multi_index((place, seen.node, number), grid)
    units, batch = np.unique(each, return_inverse=True)
    head, node, _ = np.unravel_index(units, grid)
    own = total(rows, batch, len(units))
    missed = total(rows * (seen.promised - seen.recovery), batch, len(units)) / own
    apart = (missed - (promised - observed)[head]) ** 2
    count = np.bincount(head, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = total(own * apart, head) / weight * count / (count - 1)
        known = count > 1
        pooled = np.average(variance[known], weights=count[known] - 1) if known.any() else 0.0
        variance = np.maximum(np.where(known, variance, 0.0), pooled)
        error = np.sqrt(variance * total(own**2, head)) / weight
    rounds = np.zeros(size, dtype=np.int64)
    for one in range(grid[1]):
        rounds = np.maximum(rounds, np.bincount(head[node == one], minlength=size))
    return (
        PromisedRecovery(promised.reshape(shape)),
        ObservedRecovery(observed.reshape(shape), rounds.reshape(shape), error.reshape(shape)),
    )
