"""The `uniform` policy: every head the same budget, as in fixed top-k (StreamingLLM, Quest)."""

import numpy as np

from solver.budgets.curves import Ints


def uniform(pieces: int, layers: int, heads: int) -> Ints:
    """`pieces` for every head, `[layers, heads]`."""
    return np.full((layers, heads), pieces, dtype=np.int64)
