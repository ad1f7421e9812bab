"""EPLB's balanced packing: longest first among the devices that still have room.

deepseek-ai/EPLB packs exactly n / G items a device; where G does not divide n, counts differ by
one, larger first.
"""

import numpy as np

from solver.heuristics.greedy import longest_first
from solver.problem import Assignment, LayerProblem


def greedy_equal(layer: LayerProblem) -> Assignment:
    """Longest first with equal counts."""
    return np.asarray(longest_first(layer.distinct(layer.blended_s)[None], layer.counts)[0])
