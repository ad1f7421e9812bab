"""How unlike heads are in what they need, and how alike that is across contexts and tasks.

What S-HPLB (arXiv 2603.10353, section 2.4) calls heterogeneous yet stable.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from profiles.heads import CurvesForm
from profiles.measurement import Stability

RECOVERY = 0.9
Floats = NDArray[np.float64]


def needed_shares(recovery: Floats, budget_tokens: Floats, context_tokens: int) -> Floats:
    """The least share of the context that recovers RECOVERY, [...], for recovery [..., points].

    Curves are made monotone and interpolated between points; none needs less than the first
    budget, and one that never reaches it needs the last.

    >>> needed_shares(np.array([0.4, 0.8, 1.0]), np.array([16.0, 32, 64]), 64)
    array(0.75)
    """
    rising = np.maximum.accumulate(recovery, axis=-1)
    tokens = np.apply_along_axis(lambda one: np.interp(RECOVERY, one, budget_tokens), -1, rising)
    return np.asarray(np.minimum(1.0, tokens / context_tokens))


def head_shares(heads: CurvesForm) -> Floats:
    """The share of each context that each head needs, [contexts, layers, heads]."""
    recovery, budgets = np.array(heads.recovery), np.array(heads.budget_tokens, dtype=float)
    return np.stack(
        [
            needed_shares(recovery[:, :, place], budgets[place], context)
            for place, context in enumerate(heads.context_tokens)
        ]
    )


def rank_correlations(axis: str, shares: dict[str, Floats]) -> list[Stability]:
    """Every pair of contexts, or of tasks, by name; each share [layers, heads]."""
    return [
        Stability.model_validate(
            {
                "axis": axis,
                "between": (first, second),
                "recovery": RECOVERY,
                "layers": [
                    spearman(*rows) for rows in zip(shares[first], shares[second], strict=True)
                ],
                "model": spearman(shares[first].ravel(), shares[second].ravel()),
            }
        )
        for first, second in combinations(shares, 2)
    ]


def spearman(first: Floats, second: Floats) -> float | None:
    """Spearman's rank correlation; None where either has no order.

    >>> spearman(np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.9]))
    1.0
    """
    # Takes a second to load, which every other command does without.
    from scipy.stats import spearmanr

    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.clip(spearmanr(first, second).statistic, -1, 1))
