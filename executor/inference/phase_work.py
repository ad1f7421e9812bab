"""What a rank's attention of a batch really did, counted as executors and the cost model count.

Of a sampled step only, and not while it is served: a decode's lists are counted one by one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from executor.attention.counts import attention_work, count_decodes
from executor.attention.step import PreparedStep
from executor.inference.slot_steps import Numbers, Phase
from profiles.architecture import Architecture
from profiles.cost.work import FEATURES


def phase_work(
    phase: Phase, groups: Sequence[int], architecture: Architecture
) -> NDArray[np.float64]:
    """Work of a phase of the batch, [layers, FEATURES], 0 in a layer without any.

    `groups` [layers] are the KV groups that the rank has shares of. Attention alone: an engine
    projects elsewhere.
    """
    found = np.zeros((len(phase.steps), len(FEATURES)))
    for layer, step in enumerate(phase.steps):
        if step is not None:
            work = _layer_work(step, phase.context, groups[layer], architecture)
            found[layer] = [work.get(name, 0) for name in FEATURES]
    return found


def _layer_work(
    step: PreparedStep, context: Numbers, groups: int, architecture: Architecture
) -> dict[str, int]:
    if step.decode is None:
        return attention_work(
            step.counts,
            architecture,
            step.piece_tokens,
            list_rows=step.block_tokens,
            computed_rows=step.computed_rows,
            lists=groups * len(context),
            read_tokens=groups * int(context.sum()),
        )
    # A decoding step's counts are those of full rooms.
    counts = count_decodes(step.decode.lists, context, step.piece_tokens)
    return attention_work(
        counts,
        architecture,
        step.piece_tokens,
        list_rows=1,
        computed_rows=counts.query_blocks,
        lists=len(step.decode.lists),
        read_tokens=counts.decoded_pieces * step.piece_tokens,
    )
