"""One candidate per layer under shared capacities: Toyoda's effective gradient.

Y. Toyoda, A simplified algorithm for obtaining approximate solutions to zero-one programming
problems, Management Science 21(12), 1975, for the multiple-choice knapsack: from every layer's
quickest candidate, switch the layer that pays the fewest seconds per byte of excess removed until
the capacities hold, then take back every switch that has become needless.
"""

import numpy as np

from solver.problem import Floats, Ints


def choose(makespan_s: Floats, held: Floats, capacity: Floats) -> Ints:
    """The candidate of every layer, `[layers]`; the least excess found where nothing fits.

    `makespan_s` [layers, candidates], infinite where a layer has fewer; `held` [layers,
    candidates, classes] bytes; `capacity` [classes] bytes.
    """
    every = np.arange(len(makespan_s))
    picks = np.asarray(makespan_s.argmin(axis=1), dtype=np.int64)
    while True:
        excess, excess_if = _excesses(picks, held, capacity)
        dearer_s = np.maximum(makespan_s - makespan_s[every, picks][:, None], 0)
        removed = excess - excess_if
        usable = (removed > 0) & np.isfinite(makespan_s)
        if excess == 0 or not usable.any():
            return _taken_back(picks, makespan_s, held, capacity)
        per_byte = np.where(usable, dearer_s / np.where(usable, removed, 1), np.inf)
        # Of equally cheap switches (free ones, say) the one that removes most.
        cheapest = np.where(per_byte <= per_byte.min(), removed, -np.inf)
        layer, candidate = np.unravel_index(cheapest.argmax(), cheapest.shape)
        picks[layer] = candidate


def _taken_back(picks: Ints, makespan_s: Floats, held: Floats, capacity: Floats) -> Ints:
    """Quicker candidates wherever the excess does not grow, the largest gain first."""
    every = np.arange(len(picks))
    while True:
        excess, excess_if = _excesses(picks, held, capacity)
        gain_s = np.where(excess_if <= excess, makespan_s[every, picks][:, None] - makespan_s, 0)
        layer, candidate = np.unravel_index(gain_s.argmax(), gain_s.shape)
        if gain_s[layer, candidate] <= 0:
            return picks
        picks[layer] = candidate


def _excesses(picks: Ints, held: Floats, capacity: Floats) -> tuple[float, Floats]:
    """Bytes above the capacities now, and after each possible switch `[layers, candidates]`."""
    taken = held[np.arange(len(picks)), picks]
    totals = taken.sum(axis=0)
    after = totals - taken[:, None] + held
    return float(_above(totals, capacity)), np.asarray(_above(after, capacity))


def _above(totals: Floats, capacity: Floats) -> Floats:
    return np.asarray(np.maximum(totals - capacity, 0).sum(axis=-1))
