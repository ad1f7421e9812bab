"""KV groups that share devices, as one component: a bound on what copies cost, and its placement.

Devices and the groups on them form a graph with an edge a copy. A component of m devices has at
least m - 1 edges beyond one a group, so that in a makespan T (launch aside) its groups, of work and
charges V and least charge c, need m >= (V - c) / (T - c) devices: partitions of the groups whose
needs, rounded up, add up to at most G are all there is. The least such T is found over all sets of
groups, equal ones counted and not told apart, by a dynamic program over pairs of a set and its
part, for many levels at once. Splitting with setups has the same structure (Xing & Zhang 2000);
wrap-around attains T inside a component unless a cut leaves less room than a charge.
"""

import math
from functools import lru_cache

import numpy as np

from solver.deadline import Deadline
from solver.divide.seconds import Piece, Seconds
from solver.divide.wrap_around import as_shares, best_pieces, blend
from solver.problem import LayerProblem
from solver.shares import Floats, Ints, Shares

MOST_PAIRS = 60_000
"""Pairs of a set and a part of it up to which all are looked at: those of ten unlike groups."""

LEVELS = 24
"""Levels tried at once; each round narrows the interval by as much."""

SHARPNESS = 1e-7

EQUAL = 1e-11
"""Groups whose seconds differ by less than this, relatively, are of one kind."""

COUNTED = 1e-9
"""A need this little above a whole number of devices counts as that number."""


def applies(layer: LayerProblem) -> bool:
    """Whether copies are charged and the groups are few, or enough of them are equal."""
    if not layer.identical or not layer.charged:
        return False
    _, _, _, counts = _kinds(layer)
    return math.prod((n + 1) * (n + 2) // 2 for n in counts) <= MOST_PAIRS


class Components:
    """The sets of one layer's groups `[sets]`, each so many of every kind; identical devices."""

    def __init__(self, layer: LayerProblem) -> None:
        work, charge, self.members, counts = _kinds(layer)
        self.devices = layer.devices
        self.launch = float(layer.launch_s[0, 0])
        self.sets = np.indices([n + 1 for n in counts]).reshape(len(counts), -1).T
        self.volume: Floats = self.sets @ (work + charge)
        self.charge: Floats = np.where(self.sets > 0, charge, np.inf).min(axis=1)
        self.parts = _parts(counts)

    def least_s(self, known_s: float) -> tuple[float, float]:
        """The largest level known to hold no plan, at least `known_s`, and the least that may."""
        low = known_s
        high = known_s * (1 + SHARPNESS)
        while not self._fits(np.array([high]))[0]:
            low, high = high, high + 8 * (high - low)
        while high - low > SHARPNESS * high:
            levels = np.linspace(low, high, LEVELS + 1)[1:]
            first = int(self._fits(levels).argmax())
            low, high = levels[first - 1] if first else low, float(levels[first])
        return float(low), high

    def partition(self, level: float) -> list[tuple[Ints, int]]:
        """The groups of every component and its devices at a level that fits."""
        needs = self._needs(np.array([level]))
        best = self._fewest(needs)[:, 0]
        waiting = [groups.tolist() for groups in self.members]
        rest = len(best) - 1
        found = []
        while rest:
            part = self.parts[rest]
            chosen = int(part[(needs[part, 0] + best[rest - part]).argmin()])
            groups = [
                groups.pop()
                for groups, count in zip(waiting, self.sets[chosen], strict=True)
                for _ in range(count)
            ]
            found.append((np.array(sorted(groups)), int(needs[chosen, 0])))
            rest -= chosen
        return found

    def _fits(self, levels: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        fewest = self._fewest(self._needs(levels))
        return np.asarray(fewest[-1] <= self.devices)

    def _needs(self, levels: Floats) -> Floats:
        """Devices of every subset as one component, `[subsets, levels]`."""
        room = levels - self.launch - self.charge[:, None]
        extra = (self.volume - self.charge)[:, None]
        needs = np.full(room.shape, np.inf)
        np.divide(extra, room, out=needs, where=room > 0)
        needs = np.maximum(np.ceil(needs - COUNTED), 1.0)
        needs[0] = 0.0
        return needs

    def _fewest(self, needs: Floats) -> Floats:
        """Devices of every subset in the best components, `[subsets, levels]`."""
        fewest = np.zeros_like(needs)
        for whole in range(1, len(fewest)):
            part = self.parts[whole]
            fewest[whole] = (needs[part] + fewest[whole - part]).min(axis=0)
        return fewest


def by_components(layer: LayerProblem, deadline: Deadline, least_s: float) -> Shares | None:
    """Every component of the best partition wrapped around its own devices; None without time.

    `least_s` bounds the makespan. Several workloads are filled by their weighted seconds.
    """
    blended = blend(layer)
    components = Components(blended)
    _, level = components.least_s(least_s)
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


def _kinds(layer: LayerProblem) -> tuple[Floats, Floats, list[Ints], tuple[int, ...]]:
    """Groups of equal work and charge: both `[kinds]`, the groups of each kind, and how many."""
    present = layer.present
    charge = layer.group_s[0, present, 0]
    work = np.bincount(layer.group_of, layer.item_s[0, :, 0], layer.groups)[present]
    unit = float((work + charge).max()) * EQUAL
    # Rounded down: a set never looks larger than it is.
    rounded = np.floor(np.stack([work, charge], axis=1) / unit)
    kinds, kind_of = np.unique(rounded, axis=0, return_inverse=True)
    members = [present[kind_of.ravel() == kind] for kind in range(len(kinds))]
    return kinds[:, 0] * unit, kinds[:, 1] * unit, members, tuple(len(m) for m in members)


@lru_cache(maxsize=64)
def _parts(counts: tuple[int, ...]) -> list[Ints]:
    """For every set the parts of it with at least one of its first kind, as indices of sets.

    Sets are numbered in mixed radix, so that the rest of a set without a part is their difference.
    """
    radix = np.cumprod([1, *(n + 1 for n in counts[:0:-1])])[::-1]
    parts = [np.zeros(0, dtype=np.int64)]
    for whole in list(np.ndindex(*(n + 1 for n in counts)))[1:]:
        first = next(kind for kind, count in enumerate(whole) if count)
        axes = [np.arange(count + 1) for count in whole]
        axes[first] = axes[first][1:]
        index = np.zeros(1, dtype=np.int64)
        for axis, weight in zip(axes, radix, strict=True):
            index = (index[:, None] + axis * weight).ravel()
        parts.append(index)
    return parts
