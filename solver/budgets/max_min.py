"""The `max_min` policy, exactly: the least recovered head recovers as much as the total allows.

Maximises min over heads h of R_h(b_h) with sum of cost(b_h) at most a total and b_h at least a
floor: what S-HPLB's budget shifting (arXiv 2603.10353, section 3.2) approaches step by step.
Level filling with progressive freezing, as for max-min fair rates (Bertsekas and Gallager, Data
Networks, section 6.5.2): with non-decreasing curves a common level r costs the least at
b_h = R_h^-1(r), so the best level is bisected. What a level leaves over raises the least
recovered head, again and again; a head whose next improvement does not fit is set aside.
"""

from collections.abc import Callable

import numpy as np

from solver.budgets.curves import Floats, Ints, RecoveryCurves
from solver.budgets.levels import Mask, highest_fitting
from solver.budgets.recovery import least_pieces

Cost = Callable[[Ints], Ints]
"""What budgets in whole pieces draw from the total: rises strictly with the pieces."""

BISECTIONS = 40
"""Leaves 1e-12 of recovery open; the steps after the bisection settle the rest exactly."""


def max_min(curves: RecoveryCurves, each: int, floor: int, cost: Cost) -> Ints:
    """Pieces `[layers, heads]`; every layer draws at most what `each` pieces a head would.

    The minimum recovery of every layer is the greatest possible. `floor` is at most `each`.
    """
    layers, heads = curves.recovery.shape[:-1]
    pieces = np.full((layers, heads), floor, dtype=np.int64)
    total = cost(np.full((layers, heads), each, dtype=np.int64)).sum(axis=1)
    open_ = np.ones((layers, heads), dtype=bool)
    while open_.any():
        pieces = _level(curves, pieces, open_, total, cost)
        # As many steps as there are heads, then level anew: where a head that needs much was
        # set aside, the rest may have far to rise.
        for _ in range(heads):
            pieces, open_ = _raise_lowest(curves, pieces, open_, total, cost)
            if not open_.any():
                break
    return pieces


def _level(curves: RecoveryCurves, pieces: Ints, open_: Mask, total: Ints, cost: Cost) -> Ints:
    """Raise the open heads of every layer to the highest common recovery that fits."""

    def at_level(level: Floats) -> Ints:
        wanted = np.maximum(pieces, least_pieces(curves, level[:, None]))
        return np.where(open_, wanted, pieces)

    def fits(level: Floats) -> Mask:
        return np.asarray(cost(at_level(level)).sum(axis=1) <= total)

    return at_level(highest_fitting(fits, len(pieces), BISECTIONS))


def _raise_lowest(
    curves: RecoveryCurves, pieces: Ints, open_: Mask, total: Ints, cost: Cost
) -> tuple[Ints, Mask]:
    """One step of every layer: close heads that cannot be raised, raise the least recovered."""
    recovery = curves.at(pieces)
    # A plateau is crossed in one step: pieces that recover nothing more are never given alone.
    better = least_pieces(curves, np.nextafter(recovery, 2.0))
    left = total - cost(pieces).sum(axis=1)
    open_ = open_ & (recovery < 1) & (cost(better) - cost(pieces) <= left[:, None])
    lowest = np.where(open_, recovery, np.inf).argmin(axis=1)[:, None]
    chosen = np.arange(pieces.shape[1]) == lowest
    return np.where(chosen & open_, better, pieces), open_
