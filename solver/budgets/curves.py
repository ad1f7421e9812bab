"""Recovery of every head at any budget and context, from curves measured at a few of each.

A budget counts as a share of the context: the share a head needs is what stays put when the
context grows (S-HPLB, arXiv 2603.10353, Fig. 6). Between measured shares recovery is
interpolated linearly, between measured contexts linearly in log(context). In a layer with a
window it is the share of the tokens in reach, which do not grow beyond the window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from profiles.architecture import Architecture, Windows
from profiles.cost.work import Workload, budget_pieces
from profiles.heads import CurvesForm
from solver.budgets.options import Curve

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MeasuredCurves:
    """A profile's curves at the contexts that they were measured at, as arrays: made once.

    Contexts rise; recovery [layers, heads, contexts, points] belongs to budget_tokens
    [contexts, points]. `windows` are the architecture's.
    """

    context_tokens: tuple[int, ...]
    budget_tokens: Floats
    recovery: Floats
    windows: Windows = ()

    @classmethod
    def of(cls, form: CurvesForm, curve: Curve = "oracle", windows: Windows = ()) -> Self:
        """The oracle's curves of a profile, or those of the executor's selector, which it has."""
        known = form.arrays
        recovery = known.recovery if curve == "oracle" else known.selected_recovery
        assert recovery is not None  # its caller looked
        return cls(tuple(form.context_tokens), known.budget_tokens, recovery, windows)

    def at(self, workload: Workload) -> "RecoveryCurves":
        """The curves at the workload's context; outside the measured contexts, the nearest's."""
        context, measured = workload.context_tokens, self.context_tokens
        lower, upper, weight = neighbours(measured, context)
        alike = []
        for layers, window in by_window(self.windows, len(self.recovery)):
            curves = [self._anchored(index, layers, window) for index in (lower, upper)]
            alike.append((layers, min(window, context) / context, curves))
        knots = [reach * curve[0] for _, reach, curves in alike for curve in curves]
        shares = np.unique(np.concatenate([*knots, [1.0]]))
        recovery = np.empty((*self.recovery.shape[:2], len(shares)))
        for layers, reach, curves in alike:
            within = np.where(shares < reach, shares / reach, 1.0)[None, None]
            at_lower, at_upper = (interpolate(*curve, within) for curve in curves)
            recovery[layers] = np.minimum((1 - weight) * at_lower + weight * at_upper, 1.0)
        recovery[..., -1] = 1.0
        warning = None
        if not measured[0] <= context <= measured[-1]:
            warning = (
                f"context of {context} tokens: outside the profile's curves; budgets are taken as "
                f"the same shares of the context as at {measured[upper]} tokens, the nearest "
                "measured"
            )
        return RecoveryCurves(shares, recovery, context, workload.piece_tokens, warning)

    def points(self, layers: Ints, heads: Ints, tokens: Ints, contexts: Ints) -> Floats:
        """Recovery of single heads, each at its own budget and context: all [points].

        What `at` would say of each; of the whole context everything.
        """
        lower, upper, weight = self.around(contexts)
        found = np.empty((2, len(layers)))
        for alike, window in by_window(self.windows, len(self.recovery)):
            row = np.cumsum(alike) - 1
            share = np.minimum(tokens / np.minimum(window, contexts), 1.0)
            for side, index in product((0, 1), range(len(self.context_tokens))):
                mine = alike[layers] & ((lower, upper)[side] == index)
                if mine.any():
                    shares, recovery = self._anchored(index, alike, window)
                    of_points = recovery[row[layers[mine]], heads[mine]][:, None]
                    found[side, mine] = interpolate(
                        shares, of_points, share[mine, None, None]
                    ).ravel()
        return np.asarray(np.minimum((1 - weight) * found[0] + weight * found[1], 1.0))

    def around(self, contexts: Ints) -> tuple[Ints, Ints, Floats]:
        """Of contexts [points] the measured ones around each by index, and the weight of the upper,
        as curves are interpolated."""
        each, at = np.unique(contexts, return_inverse=True)
        found = [neighbours(self.context_tokens, int(context)) for context in each]
        lower, upper, weight = np.array(found, dtype=np.float64).reshape(-1, 3).T[:, at]
        return lower.astype(np.int64), upper.astype(np.int64), weight

    def _anchored(
        self, index: int, layers: NDArray[np.bool_], window: float
    ) -> tuple[Floats, Floats]:
        """Shares [knots] of what is in reach and recovery [layers, heads, knots], at one context.

        Points at or beyond the whole reach give way to the anchor: all keys recover everything.
        """
        shares = self.budget_tokens[index] / min(window, self.context_tokens[index])
        inside = shares < 1
        rising = np.maximum.accumulate(self.recovery[layers, :, index][..., inside], axis=-1)
        anchored = np.pad(rising, ((0, 0), (0, 0), (1, 1)))
        anchored[..., -1] = 1.0
        return np.concatenate(([0.0], shares[inside], [1.0])), anchored


@dataclass(frozen=True, eq=False)
class RecoveryCurves:
    """Piecewise linear curves of one context: `recovery[layer, head, knot]` at `shares[knot]`.

    Shares rise strictly from 0 to 1; each curve is non-decreasing from 0 to 1, for nothing is
    recovered of no keys and everything of all. `warning` says where figures were extrapolated.
    """

    shares: Floats
    recovery: Floats
    context_tokens: int
    piece_tokens: int
    warning: str | None = None

    @property
    def context_pieces(self) -> int:
        return -(-self.context_tokens // self.piece_tokens)

    def share(self, pieces: Ints) -> Floats:
        """Share of the context that whole pieces cover, any shape; the last may be cut short."""
        tokens = np.minimum(pieces * self.piece_tokens, self.context_tokens)
        return np.asarray(tokens / self.context_tokens, dtype=np.float64)

    def at(self, pieces: Ints) -> Floats:
        """Recovery of every head at its own budget `[layers, heads]`, in whole pieces."""
        return interpolate(self.shares, self.recovery, self.share(pieces)[..., None])[..., 0]

    def table(self) -> Floats:
        """Recovery at every whole-piece budget, `[layers, heads, pieces]`: entry i is i + 1 pieces.

        Takes 8 bytes an entry and a few times that while it is made: mind long contexts.
        """
        pieces = np.arange(1, self.context_pieces + 1, dtype=np.int64)
        return interpolate(self.shares, self.recovery, self.share(pieces)[None, None])

    def layer(self, layer: int) -> Self:
        """One layer's curves, `[1, heads, knots]`."""
        return replace(self, recovery=self.recovery[layer : layer + 1])

    def pooled(self) -> Self:
        """All heads of the model as if of one layer, `[1, layers * heads, knots]`."""
        return replace(self, recovery=self.recovery.reshape(1, -1, len(self.shares)))


def by_window(windows: Windows, layers: int) -> list[tuple[NDArray[np.bool_], float]]:
    """Every window in tokens, infinite for none, and which of the `[layers]` have it."""
    each = np.array([window or np.inf for window in windows or (None,) * layers])
    return [(each == window, float(window)) for window in np.unique(each)]


def pieces_in_reach(architecture: Architecture, workload: Workload) -> Ints:
    """Pieces `[layers, 1]` of what a row of each layer can see."""
    reaches = np.array(architecture.reaches(workload.context_tokens), dtype=np.float64)
    return budget_pieces(reaches, workload)[:, None]


def between(weight: Floats, left: Floats, right: Floats) -> Floats:
    """`left` at weight 0 to `right` at 1, and never falling in between, rounding included."""
    inside = np.minimum(left + (right - left) * weight, right)
    return np.where(weight >= 1, right, inside)


def interpolate(knots: Floats, values: Floats, at: Floats) -> Floats:
    """Values `[layers, heads, points]` at places `at`; its first two axes may be 1.

    `knots` [knots] rise strictly and enclose `at`; `values` [layers, heads, knots] do not fall.
    """
    left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    weight = (at - knots[left]) / (knots[left + 1] - knots[left])
    return between(
        weight,
        np.take_along_axis(values, left, axis=-1),
        np.take_along_axis(values, left + 1, axis=-1),
    )


def neighbours(measured: Sequence[int], context: int) -> tuple[int, int, float]:
    """The measured contexts around this one by index, and the weight of the upper."""
    upper = int(np.searchsorted(measured, context))
    if upper == len(measured):
        return upper - 1, upper - 1, 0.0
    if upper == 0 or measured[upper] == context:
        return upper, upper, 0.0
    below, above = np.log(measured[upper - 1]), np.log(measured[upper])
    return upper - 1, upper, float((np.log(context) - below) / (above - below))
