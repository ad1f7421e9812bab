"""The most even division of two devices' items between them, charges of groups included.

Every way to divide each half of the groups is listed; of those, a way that leaves both devices
more than another does is dropped, and each way of one half is met by the one of the other that
evens it out (two lists: Horowitz & Sahni 1974). Items of a class count, not which they are.
"""

from dataclasses import dataclass

import numpy as np

from solver.shares import Floats, Ints

TRIED = 10
"""Ways of one half for which a fitting way of the other is sought."""
MOST_WAYS = 1_024
"""Ways to divide one half of the groups; classes beyond that stay as they are."""


@dataclass(frozen=True, eq=False)
class Ways:
    """Ways to divide the items of some groups: the loads here and there, and the items here.

    here_s, there_s [ways]; items [ways]; counts [ways, classes] here.
    """

    here_s: Floats
    there_s: Floats
    items: Ints
    counts: Ints

    def only(self, chosen: Ints) -> "Ways":
        return Ways(
            self.here_s[chosen], self.there_s[chosen], self.items[chosen], self.counts[chosen]
        )


@dataclass(frozen=True, eq=False)
class Pair:
    """Two devices: cost_s [classes, 2], charge_s [groups, 2], launch_s [2].

    `holding` is how many items the first must have, or None.
    """

    cost_s: Floats
    charge_s: Floats
    launch_s: Floats
    holding: int | None


def divide(
    pair: Pair, groups: tuple[Ints, ...], counts: Ints, random: np.random.Generator
) -> Ints | None:
    """The counts [classes] of the first device in the most even division; None if none is.

    `groups` are the classes of every group, `counts` [classes, 2] how they are divided now. Exact
    where every class could be divided anew, which classes are being left to chance where not; and
    but for the launch of a device that is left with nothing.
    """
    first, second = (_undominated(half, pair) for half in halves(pair, groups, counts, random))
    # The one sum rises and the other falls along `second`: the best is where they cross.
    apart = second.here_s - second.there_s
    step = 1.0 + 2.0 * float(np.abs(apart).max() + np.abs(first.here_s - first.there_s).max())
    wanted = np.zeros_like(first.items) if pair.holding is None else pair.holding - first.items
    have = np.zeros_like(second.items) if pair.holding is None else second.items
    at = np.searchsorted(apart + step * have, first.there_s - first.here_s + step * wanted)
    tries = np.stack([np.maximum(at - 1, 0), np.minimum(at, len(apart) - 1)])
    larger = np.maximum(first.here_s + second.here_s[tries], first.there_s + second.there_s[tries])
    larger[have[tries] != wanted] = np.inf
    side, one = np.unravel_index(int(larger.argmin()), larger.shape)
    if not np.isfinite(larger[side, one]):
        return None
    return np.asarray(first.counts[one] + second.counts[tries[side, one]])


def halves(
    pair: Pair, groups: tuple[Ints, ...], counts: Ints, random: np.random.Generator
) -> tuple[Ways, Ways]:
    """All ways to divide the one half of the groups, with the launches, and the other."""
    of_both = counts.sum(axis=1)
    lists: list[list[Ways]] = [[], []]
    sizes = [1, 1]
    for number in random.permutation(len(groups)):
        classes = groups[number]
        if not of_both[classes].any():
            continue
        half = int(sizes[1] < sizes[0])
        ways = _of_group(pair, number, classes, counts, MOST_WAYS // sizes[half], random)
        lists[half].append(ways)
        sizes[half] *= len(ways.items)
    nothing = np.zeros((1, len(counts)), dtype=np.int64)
    launches = Ways(pair.launch_s[:1], pair.launch_s[1:], np.zeros(1, dtype=np.int64), nothing)
    none = Ways(np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.int64), nothing)
    return _together([launches, *lists[0]]), _together([none, *lists[1]])


def _of_group(
    pair: Pair, group: int, classes: Ints, counts: Ints, most: int, random: np.random.Generator
) -> Ways:
    """At most about `most` ways to divide one group's items."""
    both = counts[classes].sum(axis=1)
    divisions = np.zeros((1, 0), dtype=np.int64)
    free = np.zeros(len(classes), dtype=bool)
    product = 1
    for place in random.permutation(len(classes)):
        if product * (both[place] + 1) <= most:
            free[place] = True
            product *= both[place] + 1
    for place, total in enumerate(both):
        options = np.arange(total + 1) if free[place] else counts[classes[place], :1]
        times = len(divisions)
        divisions = np.repeat(divisions, len(options), axis=0)
        divisions = np.column_stack([divisions, np.tile(options, times)])
    rest = both - divisions
    cost_s, charge_s = pair.cost_s[classes], pair.charge_s[group]
    here_s = divisions @ cost_s[:, 0] + np.where(divisions.any(axis=1), charge_s[0], 0.0)
    there_s = rest @ cost_s[:, 1] + np.where(rest.any(axis=1), charge_s[1], 0.0)
    spread = np.zeros((len(divisions), len(counts)), dtype=np.int64)
    spread[:, classes] = divisions
    return Ways(here_s, there_s, divisions.sum(axis=1), spread)


def _together(lists: list[Ways]) -> Ways:
    """Every choice of one way of each list."""
    ways = lists[0]
    for more in lists[1:]:
        one, other = np.indices((len(ways.items), len(more.items))).reshape(2, -1)
        ways = Ways(
            ways.here_s[one] + more.here_s[other],
            ways.there_s[one] + more.there_s[other],
            ways.items[one] + more.items[other],
            ways.counts[one] + more.counts[other],
        )
    return ways


def _undominated(ways: Ways, pair: Pair) -> Ways:
    """The ways that no other betters on both devices, by rising load here.

    With counts to keep: among those with as many items, by rising number of items first.
    """
    items = ways.items if pair.holding is not None else np.zeros_like(ways.items)
    order = np.lexsort((ways.there_s, ways.here_s, items))
    step = 1.0 + 2.0 * float(ways.there_s.max())
    there_s = ways.there_s[order] - step * items[order]
    least = np.minimum.accumulate(there_s)
    better = np.concatenate([[True], there_s[1:] < least[:-1]])
    return ways.only(order[better])


def divide_at_random(
    pair: Pair,
    groups: tuple[Ints, ...],
    counts: Ints,
    most_s: float,
    random: np.random.Generator,
) -> Ints | None:
    """As `divide`, but any division at random of those with both loads below `most_s`."""
    first, second = halves(pair, groups, counts, random)
    for one in random.permutation(len(first.items))[:TRIED]:
        fits = first.here_s[one] + second.here_s < most_s
        fits &= first.there_s[one] + second.there_s < most_s
        if pair.holding is not None:
            fits &= first.items[one] + second.items == pair.holding
        if fits.any():
            other = random.choice(np.flatnonzero(fits))
            return np.asarray(first.counts[one] + second.counts[other])
    return None
