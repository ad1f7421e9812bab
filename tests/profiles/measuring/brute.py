"""What measuring should find, by definition, from whole attention maps in float64."""

from itertools import combinations

import numpy as np


def piece_mass(attention, positions, size):
    """Mass [rows, pieces] of the rows `positions` of one head's map [tokens, tokens]."""
    pieces = -(-attention.shape[1] // size)
    return np.array(
        [[attention[p, b * size : (b + 1) * size].sum() for b in range(pieces)] for p in positions]
    )


def oracle(mass, members, blocks, budget, sink=1, local=1, first_seen=0, own=1):
    """Mean recovery of the best lists of `budget` pieces that hold what is always in.

    A query block has `own` pieces; `local` is at least as many.
    """
    total = 0.0
    for member, block in enumerate(blocks):
        together = mass[[m == member for m in members]].sum(0)
        first = first_seen if isinstance(first_seen, int) else first_seen[member]
        end = (block + 1) * own
        seen = range(first, min(end, mass.shape[1]))
        always = [b for b in range(end - 1, end - 1 - max(local, own), -1) if b in seen]
        always += [b for b in range(sink) if b in seen and b not in always]
        always = always[:budget]
        rest = [b for b in seen if b not in always]
        more = min(budget - len(always), len(rest))
        if len(rest) <= 10:
            best = max(together[list(c)].sum() for c in combinations(rest, more))
        else:
            best = np.sort(together[rest])[::-1][:more].sum()
        total += together[always].sum() + best
    return total / len(members)
