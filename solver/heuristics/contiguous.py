"""Stock tensor parallelism: items in file order, counts at most one apart, larger first."""

import numpy as np

from solver.problem import Assignment, LayerProblem


def contiguous(layer: LayerProblem) -> Assignment:
    """What an engine does that knows nothing of the heads (vLLM, Megatron)."""
    return np.repeat(np.arange(layer.devices, dtype=np.int64), layer.counts)
