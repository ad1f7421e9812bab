"""The `influence` policy: what is not recovered, weighed by what it does to the loss, at its least.

Minimises the sum over heads of influence_h * (1 - R_h(b_h)) (`solver.budgets.least_loss`). The
weights follow MoA (arXiv 2406.14909): how much the model's loss moves with a head's attention, from
gradients.
"""

import numpy as np

from solver.budgets.curves import Floats, RecoveryCurves


def weighed_shortfall(curves: RecoveryCurves, influence: Floats) -> Floats:
    """What every whole-piece budget leaves unrecovered, weighed, `[pools, heads, pieces]`."""
    return weights(influence)[..., None] * (1 - curves.table())


def weights(influence: Floats) -> Floats:
    """Influences `[pools, heads]` over their mean; alike in a pool that has none."""
    if not influence.any():
        return np.ones_like(influence)
    # The largest first: neither huge nor tiny figures overflow or vanish.
    scaled = influence / influence.max()
    return np.where(influence.any(axis=1, keepdims=True), scaled / scaled.mean(), 1.0)
