"""Losses of windows of text, each read within several budgets."""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from executor.evaluation.scoring import surprise
from executor.evaluation.texts import scored_tokens
from executor.inference.policy import Policy
from profiles.measuring.loading import Loaded
from profiles.time_left import Show, TimeLeft

Floats = NDArray[np.float64]


def losses(
    loaded: Loaded,
    texts: Sequence[tuple[int, ...]],
    policies: Sequence[Policy | None],
    block_tokens: int,
    progress: Show,
) -> tuple[Floats, Floats]:
    """Nats a token of the windows' ends, and the share of dense attention's tiles computed.

    Both `[windows, policies]`; policy None is the model as it is.
    """
    nats, shares = np.zeros((2, len(texts), len(policies)))
    left = TimeLeft(nats.size)
    for done, (number, place) in enumerate(np.ndindex(nats.shape)):
        progress(done, nats.size, left.after(f"window {number + 1} of {len(texts)}"))
        began, ids = perf_counter(), texts[number]
        nats[number, place], computed = surprise(
            loaded.model, ids, scored_tokens(len(ids)), policies[place], block_tokens
        )
        shares[number, place] = computed.tiles / computed.dense_tiles
        left.done(1, perf_counter() - began)
    progress(nats.size, nats.size, "done")
    return nats, shares
