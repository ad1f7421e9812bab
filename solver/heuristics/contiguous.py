"""Stock tensor parallelism: items in file order, counts at most one apart, larger first."""

from dataclasses import replace

import numpy as np

from solver.problem import Assignment, LayerProblem


def contiguous(layer: LayerProblem) -> Assignment:
    """What an engine does that knows nothing of the heads (vLLM, Megatron).

    Where devices have slots: whole KV groups, unless there are fewer of them than devices and their
    heads in order keep within the slots.
    """
    in_order = np.repeat(np.arange(layer.devices, dtype=np.int64), layer.counts)
    if layer.slots is None or (layer.groups < layer.devices and layer.allows(in_order)):
        return in_order
    by_group = replace(layer.by_group(), slots=None)
    return np.asarray(contiguous(by_group)[layer.group_of], dtype=np.int64)
