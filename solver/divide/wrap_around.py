"""Wrap-around (McNaughton 1959): fill device after device to one level, cutting items where full.

    R. McNaughton, Scheduling with deadlines and loss functions, Management Science 6 (1959).

Where copies are free that level is the mean load, with at most G - 1 cuts. Here a device also pays
its launch, a charge for every group it touches and what every part of an item repeats; the least
level that holds everything is found by Newton's steps and bisection. With at most c devices an
item, it starts on the first open device from which c of them hold it. A device whose slots are all
taken has room for its own groups alone. Unlike devices are filled each by its speed, which is right
where that is the same for all they do (uniform machines), and else a start for the linear program.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from math import inf

import numpy as np

from solver.deadline import Deadline
from solver.divide.few_groups import fill_slots
from solver.divide.seconds import FULL, Piece, Seconds
from solver.problem import LayerProblem
from solver.shares import Shares

Fill = Callable[[float], tuple[list[Piece], float]]
"""The pieces that devices filled to a level take, and the seconds that found no room."""

SHARPNESS = 1e-6
"""How near, relatively, the level found is to the least one for its order."""

MOST_LEVELS = 40


def wrap_around(layer: LayerProblem, deadline: Deadline, least_s: float) -> Shares | None:
    """The best shares over some orders of the items; None without time for one.

    `least_s` bounds the makespan. Several workloads are filled by their weighted
    seconds.
    """
    blended = blend(layer)
    pieces, _ = best_pieces(Seconds.of(blended), least_s, deadline)
    return None if pieces is None else as_shares(layer, pieces)


def best_pieces(
    seconds: Seconds, least_s: float, deadline: Deadline, below_s: float = inf
) -> tuple[list[Piece] | None, float]:
    """The pieces of the order that needs the least level, from `least_s` on, and that level.

    None where no order stays below `below_s`.
    """
    best: list[Piece] | None = None
    best_s = below_s
    for fill_to in _fills(seconds, least_s):
        if best_s <= least_s * (1 + 2 * SHARPNESS) or deadline.left_s <= 0:
            break
        pieces, level = fill_least(seconds, fill_to, least_s, best_s, deadline)
        if pieces is not None:
            best, best_s = pieces, level
    return best, best_s


def _fills(seconds: Seconds, level: float) -> Iterator[Fill]:
    """Ways to fill the devices: where these have few slots, ways that know of them first."""
    if seconds.slots < len(set(seconds.group)):
        for smallest in (True, False):
            yield partial(fill_slots, seconds, smallest=smallest)
    for order in orders(seconds, level):
        yield partial(fill, seconds, order)


def as_shares(layer: LayerProblem, pieces: Iterable[Piece]) -> Shares:
    """Pieces as shares."""
    item, device, share = zip(*pieces, strict=True)
    return Shares.cleaned(item, device, share, layer.items, layer.devices)


def blend(layer: LayerProblem) -> LayerProblem:
    """The layer with the weighted sum of its workloads' seconds as its only workload."""
    if layer.workloads == 1:
        return layer
    arrays = (layer.item_s, layer.part_s, layer.group_s, layer.launch_s)
    item_s, part_s, group_s, launch_s = (
        layer.everywhere(np.tensordot(layer.weights, layer.distinct(array), 1)[None])
        for array in arrays
    )
    return replace(
        layer, item_s=item_s, part_s=part_s, group_s=group_s, launch_s=launch_s, weights=np.ones(1)
    )


def orders(seconds: Seconds, level: float) -> Iterator[list[int]]:
    """Orders of the items that keep groups together, and longest first for few copies."""
    items = range(len(seconds.work))
    members: dict[int, list[int]] = {}
    for item in sorted(items, key=lambda i: -seconds.work[i]):
        members.setdefault(seconds.group[item], []).append(item)
    total = {
        group: seconds.charge[group] + sum(seconds.work[i] + seconds.part[i] for i in inside)
        for group, inside in members.items()
    }
    falling = sorted(members, key=lambda group: -total[group])
    by_group = [_best_fit(falling, total, seconds.rooms(level)[0]), falling, sorted(members)]
    for groups in by_group:
        yield [item for group in groups for item in members[group]]
    yield sorted(items, key=lambda i: -seconds.work[i])


def _best_fit(groups: Sequence[int], total: dict[int, float], level: float) -> list[int]:
    """Always the largest group that still fits the device; where none does, the largest is cut.

    `groups` come largest first.
    """
    waiting, order, room = list(groups), [], level
    smaller = [-total[group] for group in waiting]
    while waiting:
        place = bisect_left(smaller, -room * (1 + FULL)) % len(waiting)
        chosen = waiting.pop(place)
        del smaller[place]
        order.append(chosen)
        room -= total[chosen]
        if room <= FULL * level:
            room = level - (-room % level) if level > 0 else 0.0
    return order


def fill_least(
    seconds: Seconds, fill_to: Fill, least_s: float, below_s: float, deadline: Deadline
) -> tuple[list[Piece] | None, float]:
    """The pieces at about the least level to which this way of filling holds all, and the level.

    None where it does not hold all just `below_s`, which another way has reached: most ways are
    done with after that one look.
    """
    low, high = least_s, float(np.inf)
    level = max(low, below_s * (1 - 2 * SHARPNESS)) if below_s < np.inf else low
    best: list[Piece] | None = None
    for _ in range(MOST_LEVELS):
        if deadline.left_s <= 0:
            break
        pieces, unplaced_s = fill_to(level)
        if unplaced_s <= 0:
            best, high = pieces, level
        elif below_s < np.inf and best is None:
            break
        else:
            low = level
        if high - low <= SHARPNESS * low or high == least_s:
            break
        step = max(unplaced_s / sum(seconds.speed), SHARPNESS * low)
        level = low + step if high == np.inf else (low + high) / 2
    return best, high


def fill(seconds: Seconds, order: Sequence[int], level: float) -> tuple[list[Piece], float]:
    """Fill the devices to `level`: the pieces placed, and the seconds of items that found no room.

    An item starts on the first open device from which at most `copies` of them hold it.
    """
    full = FULL * level
    room = seconds.rooms(level)
    held: list[set[int]] = [set() for _ in room]
    waiting = list(range(seconds.devices))
    placed: list[Piece] = []
    unplaced_s = 0.0
    # What an item to come takes of a device, at least, before any of its work is done there.
    entries = (seconds.part[item] + seconds.charge[seconds.group[item]] for item in order[::-1])
    least_entry = [inf, *accumulate(entries, min)][-2::-1]
    to_come = Counter(seconds.group)
    unfinished = set(to_come)
    for item, entry in zip(order, least_entry, strict=True):
        work, part, group = seconds.work[item], seconds.part[item], seconds.group[item]
        to_come[group] -= 1
        if not to_come[group]:
            unfinished.remove(group)
        charge = seconds.charge[group]
        short_s, done = work, False
        for start in range(len(waiting)):
            rest, taken = work, []
            for device in waiting[start:]:
                own = group in held[device]
                if not own and len(held[device]) == seconds.slots:
                    continue
                usable = room[device] - part - (0.0 if own else charge)
                done = usable >= rest - full
                if done or usable > full:
                    takes = rest if done else usable
                    taken.append((device, takes))
                    rest -= takes
                if done or len(taken) == seconds.copies:
                    break
            short_s = min(short_s, rest)
            if done or seconds.copies == seconds.devices:
                break
        if not done:
            unplaced_s += short_s + part + charge
            continue
        for device, takes in taken:
            room[device] -= takes + part + (0.0 if group in held[device] else charge)
            held[device].add(group)
            done_with = held[device].isdisjoint(unfinished)
            if room[device] <= full + (entry if done_with else 0.0):
                waiting.remove(device)
            placed.append((item, device, takes / work if work > 0 else 1.0))
    return placed, unplaced_s
