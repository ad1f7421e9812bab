"""The `max_min_shifting` policy: S-HPLB's max-min sparsity budget shifting, as the paper has it.

arXiv 2603.10353, section 3.2, Fig. 7: all heads start with the same budget; budget moves from the
most to the least recovered head until the donor would be the new minimum or all donors are at the
floor. The paper leaves the step open; here it is one piece. It is the baseline `max_min` is held
against.
"""

import heapq

import numpy as np

from solver.budgets.curves import Floats, Ints, RecoveryCurves
from solver.budgets.errors import BudgetError

MAX_ENTRIES = 2**24
"""Heads x pieces; shifting takes time in proportion, where `max_min` takes its logarithm."""


def shift(curves: RecoveryCurves, each: int, floor: int) -> Ints:
    """Pieces `[layers, heads]` after shifting within each layer from `each` pieces a head.

    A layer's sum of pieces stays what it was. So its causal tiles never grow: from a query block's
    own pieces on they are concave in a head's, and equal pieces have the most. Raises BudgetError
    above MAX_ENTRIES.
    """
    entries = curves.recovery.shape[0] * curves.recovery.shape[1] * curves.context_pieces
    if entries > MAX_ENTRIES:
        raise BudgetError(
            f"policy 'max_min_shifting': {entries} head-pieces at a context of "
            f"{curves.context_tokens} tokens are more than the {MAX_ENTRIES} it can shift one by "
            "one; use policy 'max_min', which is exact and has no such limit"
        )
    layers = range(len(curves.recovery))
    return np.stack([_shift_layer(curves.layer(n).table()[0], each, floor) for n in layers])


def _shift_layer(recovery: Floats, each: int, floor: int) -> Ints:
    """Shift between the heads of `recovery` [heads, pieces]; returns pieces [heads]."""
    pieces = [each] * len(recovery)
    # Entries (recovery, head, pieces) are out of date once the head has other pieces.
    least = [(float(value), head, each) for head, value in enumerate(recovery[:, each - 1])]
    donors = [(-value, head, each) for value, head, _ in least]
    heapq.heapify(least)
    heapq.heapify(donors)
    while True:
        while donors and (donors[0][2] != pieces[donors[0][1]] or donors[0][2] <= floor):
            heapq.heappop(donors)
        while least[0][2] != pieces[least[0][1]]:
            heapq.heappop(least)
        if not donors:
            break
        minimum, receiver, held = least[0]
        donor, kept = donors[0][1], donors[0][2] - 1
        if recovery[donor, kept - 1] <= minimum:
            break
        for head, now in ((donor, kept), (receiver, held + 1)):
            pieces[head] = now
            value = float(recovery[head, now - 1])
            heapq.heappush(least, (value, head, now))
            heapq.heappush(donors, (-value, head, now))
    return np.array(pieces, dtype=np.int64)
