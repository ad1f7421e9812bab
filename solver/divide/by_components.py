"""Wrap-around inside each of the components (`solver.divide.components`) that take least."""

import numpy as np

from solver.divide.bounds import divided_bound
from solver.divide.components import Components
from solver.divide.wrap_around import Piece, Seconds, as_shares, best_pieces, blend
from solver.placement.exact import Deadline
from solver.problem import LayerProblem, Shares


def by_components(
    layer: LayerProblem, deadline: Deadline, least_s: float | None = None
) -> Shares | None:
    """Every component of the best partition wrapped around its own devices; None without time.

    `least_s` bounds the makespan, where known. Several workloads are filled by their weighted
    seconds.
    """
    blended = blend(layer)
    components = Components(blended)
    _, level = components.least_s(least_s or divided_bound(blended).seconds)
    seconds = Seconds.of(blended)
    placed: list[Piece] = []
    first = 0
    for groups, devices in components.partition(level):
        items = np.flatnonzero(np.isin(layer.group_of, groups)).tolist()
        inside = seconds.some(dict.fromkeys(items, 1.0), devices)
        pieces, _ = best_pieces(inside, level, deadline)
        if pieces is None:
            return None
        placed += [(items[item], first + device, share) for item, device, share in pieces]
        first += devices
    return as_shares(layer, placed)
