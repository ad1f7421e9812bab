"""The `recovery` policy: every head gets the least tokens that reach one recovery ratio.

This is top-p selection decided beforehand: the budget for recovery 0.9 of S-HPLB (arXiv
2603.10353, section 2.4, Fig. 4 and 6), in whole pieces.
"""

import numpy as np

from solver.budgets.curves import Floats, Ints, RecoveryCurves, between


def least_pieces(curves: RecoveryCurves, target: float | Floats) -> Ints:
    """Least whole pieces with recovery of at least `target`, `[layers, heads]`.

    `target` is one figure or an array that broadcasts to [layers, heads]; at most 1 can be
    reached, and what asks for more gets the whole context. Agrees with `curves.at` to the bit.
    """
    wanted = np.broadcast_to(np.asarray(target, dtype=np.float64), curves.recovery.shape[:-1])
    # 1. The segment of the curve on which the target is reached.
    below = (curves.recovery < wanted[..., None]).sum(axis=-1)
    right = np.clip(below, 1, len(curves.shares) - 1)
    start, end = curves.shares[right - 1], curves.shares[right]
    from_, to = (
        np.take_along_axis(curves.recovery, knot[..., None], axis=-1)[..., 0]
        for knot in (right - 1, right)
    )
    # 2. The first whole piece on or after it that reaches the target. Bisected, not solved for:
    #    on a nearly flat segment the inverse is lost to rounding.
    missing = np.zeros(wanted.shape, dtype=np.int64)
    enough = np.full(wanted.shape, curves.context_pieces, dtype=np.int64)
    while (enough - missing > 1).any():
        middle = (missing + enough + 1) // 2
        weight = np.clip((curves.share(middle) - start) / (end - start), 0.0, 1.0)
        reached = between(weight, from_, to) >= wanted
        enough, missing = np.where(reached, middle, enough), np.where(reached, missing, middle)
    return enough
