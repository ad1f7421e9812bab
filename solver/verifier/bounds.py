"""Bounds on a layer's makespan whose proof is plain, in whole numbers.

Costs are rounded down to units of about 1e-15 of the makespan, so that what is proved of the units
holds of the costs, and nothing is lost to floating point.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import combinations, product
from math import inf

UNITS = 50
"""A makespan is about 2 ** UNITS units."""
MOST_MAKESPANS = 2.0**40
"""A cost of more makespans than this counts as so many."""
MOST_PARTS = 60_000
"""Pairs of a set of groups and a part of it up to which components are tried."""
HALVINGS = 28
"""Of the interval in which the largest level that a test refutes is sought."""
WEIGHT = 1 << 60
STEPS, MOVES = 40, 2
"""A weight is moved by itself, then by halves of that, each at most so often up and down."""
ROUNDS, COARSE_STEPS, GAIN = 10, 20, 23
"""Of weights and a level in turn, steps of weights in each, and by how many bits less than what is
proved one must gain."""

Units = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Instance:
    """A layer to place, in units: `whole` and `part` [items][types], `charge` [groups][types].

    A device of a type pays `launch` [types]; there are `devices` [types] of it. At most `copies`
    share an item; with one, items stay whole. `group_of` [items]; a device has items of at most
    `slots` groups, if it says so.
    """

    whole: Units
    part: Units
    charge: Units
    group_of: tuple[int, ...]
    launch: tuple[int, ...]
    devices: tuple[int, ...]
    copies: int
    equal_counts: bool
    slots: int | None = None

    @property
    def identical(self) -> bool:
        """Whether there is one type of device."""
        return len(self.devices) == 1

    def groups(self) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
        """Every group's charge and the whole costs of its items."""
        members: list[list[tuple[int, ...]]] = [[] for _ in self.charge]
        for cost, group in zip(self.whole, self.group_of, strict=True):
            members[group].append(cost)
        return zip(self.charge, members, strict=True)


@dataclass(frozen=True)
class Scale:
    """Seconds to units for a layer of some makespan, and back."""

    makespan_s: float

    @property
    def exponent(self) -> int:
        return UNITS - math.frexp(self.makespan_s)[1]

    def units(self, seconds: float) -> int:
        """Rounded down; all are nothing where the makespan is."""
        return int(math.ldexp(min(seconds, MOST_MAKESPANS * self.makespan_s), self.exponent))

    def seconds(self, units: float) -> float:
        return math.ldexp(units, -self.exponent)


def named_bounds(instance: Instance) -> dict[str, int]:
    """What the plain proofs give, by the names that plans call them."""
    mean, largest = _mean(instance), _largest(instance)
    proofs = {"mean of fastest devices": mean}
    if instance.identical:
        proofs = {"mean load": mean} | proofs
        proofs[f"largest item on {instance.copies} devices"] = largest
    if instance.identical or instance.copies == 1:
        proofs = {"largest item": largest} | proofs
    return proofs


def simple_bound(instance: Instance, goal: int, seek_until: float = 0.0) -> tuple[int, str]:
    """The best of the simple bounds, and its name; no better one is sought than `goal`.

    Some only tell whether a level is refuted. Where the goal is not, the largest level that is may
    be sought, until a time of the monotonic clock.
    """
    plain = named_bounds(instance)
    if not instance.identical:
        plain["weighted mean load"] = _weighted_mean(instance, max(plain.values()), goal)
        if max(plain.values()) < goal:
            forced = _weighted_mean_with_copies(instance, plain["mean of fastest devices"], goal)
            plain["weighted mean load with the copies it forces"] = forced
    elif instance.copies == 1:
        plain["pigeonhole"] = _pigeonhole(instance)
    name = max(plain, key=lambda name: plain[name])
    best = plain[name]
    copied = any(map(any, instance.charge)) or instance.slots is not None
    if instance.identical and copied:
        tests = {"mean load with the copies it forces": partial(_copies_refute, instance)}
        if sets := _sets(instance):
            tests["mean loads of components"] = partial(_components_refute, instance, sets)
        for test, refutes in tests.items():
            level = _highest(refutes, best, goal, seek_until)
            if level > best:
                best, name = level, test
    return best, name


def _highest(refutes: Callable[[int], bool], low: int, high: int, seek_until: float) -> int:
    """The largest level above `low` that is refuted, at most `high`; or `low`."""
    if low >= high or refutes(high):
        return max(low, high)
    for _ in range(HALVINGS):
        if time.monotonic() > seek_until:
            break
        middle = (low + high) // 2
        low, high = (middle, high) if refutes(middle) else (low, middle)
    return low


def _mean(instance: Instance) -> int:
    """Every item and one charge a group where they take least, spread evenly."""
    work = sum(map(min, instance.whole)) + sum(map(min, instance.charge))
    return min(instance.launch) + work // sum(instance.devices)


def _largest(instance: Instance) -> int:
    """Some device does the largest item, or where items are divided, the largest part of one."""
    charges = [instance.charge[group] for group in instance.group_of]
    return max(
        min(
            launch + charge + part + (whole - part) // instance.copies
            for whole, part, charge, launch in zip(*of_types, instance.launch, strict=True)
        )
        for of_types in zip(instance.whole, instance.part, charges, strict=True)
    )


def _pigeonhole(instance: Instance) -> int:
    """Of the k * G + 1 largest items some device has k + 1, at least the smallest so many."""
    devices = sum(instance.devices)
    sizes = Counter(instance.group_of)
    alone = all(size == 1 for size in sizes.values())
    charge = 0 if alone else min(instance.charge[group][0] for group in sizes)
    falling = sorted(
        (
            whole[0] + (instance.charge[group][0] if alone else 0)
            for whole, group in zip(instance.whole, instance.group_of, strict=True)
        ),
        reverse=True,
    )
    ends = range(devices, len(falling), devices)
    most = max((sum(falling[end - k : end + 1]) for k, end in enumerate(ends, 1)), default=0)
    return instance.launch[0] + charge + most


def _weighted_mean(instance: Instance, known: int, goal: int) -> int:
    """The mean load, each type of device counted by the weight that proves most.

    No weights are sought that prove more than `goal`.
    """
    mean = _weighing(instance, known)
    return mean(_heaviest(mean, [WEIGHT] * len(instance.devices), goal))


def _weighted_mean_with_copies(instance: Instance, known: int, goal: int) -> int:
    """The largest level found, at most `goal`, below the weighted mean load of what is within it.

    Weights for a level, and the largest level that these refute, in turn.
    """

    def refuted(by: list[int], level: int) -> bool:
        return _weighing(instance, known, level)(by) >= level

    best, weights = known, [WEIGHT] * len(instance.devices)
    for _ in range(ROUNDS):
        weights = _heaviest(_weighing(instance, known, best), weights, coarse=True)
        level = _highest(partial(refuted, weights), best, goal, inf)
        if level <= best:
            break
        best = level
        if best >= goal:
            break
    return best


def _heaviest(
    mean: Callable[[list[int]], int],
    weights: list[int],
    goal: float = inf,
    *,
    coarse: bool = False,
) -> list[int]:
    """Weights from which no step to and fro gains anything, or that prove the goal.

    Coarse, by fewer steps, and none that gains next to nothing: whoever rounds otherwise goes the
    same way.
    """
    steps = COARSE_STEPS if coarse else STEPS
    best = mean(weights)
    types = range(1, len(weights))
    for step, t, up, _ in product(range(steps), types, (True, False), range(MOVES)):
        if best >= goal:
            break
        tried = [*weights]  # of which only the ratios count
        tried[t] += (weights[t] >> step) if up else -(weights[t] >> step + 1)
        if (found := mean(tried)) > best + (best >> GAIN if coarse else 0):
            weights, best = tried, found
    return weights


def _weighing(
    instance: Instance, known: int, within: int | None = None
) -> Callable[[list[int]], int]:
    """The mean load by weights of types.

    Whatever the weights, a group costs at least what it does on the best set of types, each
    charged. A launch counts where `known`, a bound, pays for it: then an idle device has room too.
    Of what is done `within` a level a device has no more for a group's items than its launch and
    the charge leave, so that they bring their part of that charge with them.
    """
    types = range(len(instance.devices))
    sets = [some for size in types for some in combinations(types, size + 1)]
    launch = [paid if paid <= known else 0 for paid in instance.launch]
    groups = []
    for charge, items in instance.groups():
        # What an item's work brings of the charge, as a fraction.
        brings = [(0, 1) for _ in types]
        if within is not None:
            brings = [
                (own, max(within - paid - own, 1))
                for own, paid in zip(charge, instance.launch, strict=True)
            ]
        groups.append((charge, brings, items))

    def mean(weights: list[int]) -> int:
        least = 0
        for charge, brings, items in groups:
            held = [weight * own for weight, own in zip(weights, charge, strict=True)]
            costs = [[weights[t] * cost[t] for t in types] for cost in items]
            forced = [
                [c + c * own // room for c, (own, room) in zip(cost, brings, strict=True)]
                for cost in costs
            ]
            least += min(
                max(
                    sum(held[t] for t in some) + sum(min(cost[t] for t in some) for cost in costs),
                    sum(min(cost[t] for t in some) for cost in forced),
                )
                for some in sets
            )
        each = [number * weight for number, weight in zip(instance.devices, weights, strict=True)]
        return (least + sum(n * paid for n, paid in zip(each, launch, strict=True))) // sum(each)

    return mean


def _copies_refute(instance: Instance, level: int) -> bool:
    """Whether items and groups too large for one device make copies that do not fit as well."""
    room = level - instance.launch[0]
    work = 0
    needed = [1] * len(instance.charge)
    totals = [0] * len(instance.charge)
    for (whole,), (part,), group in zip(
        instance.whole, instance.part, instance.group_of, strict=True
    ):
        free = room - instance.charge[group][0] - part
        if free < 0 or (free == 0 and whole > part):
            return True
        pieces = max(1, -(-(whole - part) // free)) if free else 1
        if pieces > instance.copies:
            return True
        needed[group] = max(needed[group], pieces)
        totals[group] += whole
        work += (pieces - 1) * part
    held = 0
    for (charge,), pieces, total in zip(instance.charge, needed, totals, strict=True):
        if total:  # some item of the group has room beside its charge
            copies = max(pieces, -(-total // (room - charge)))
            work += total + copies * charge
            held += copies
    if instance.slots is not None and held > instance.slots * instance.devices[0]:
        return True
    return work > instance.devices[0] * room


@dataclass(frozen=True)
class _Sets:
    """Sets of groups, so many of each kind: every set's least charge, and its work and charges.

    `split` has for every set its parts with one of its first kind, and what each leaves of it.
    """

    charges: list[int]
    volumes: list[int]
    split: list[tuple[list[int], list[int]]]


def _sets(instance: Instance) -> _Sets | None:
    """All sets, the empty one first and all groups last; None if those are too many."""
    kinds = Counter(
        (cost, sum(whole for (whole,) in items)) for (cost,), items in instance.groups()
    )
    numbers = tuple(kinds.values())
    if math.prod((n + 1) * (n + 2) // 2 for n in numbers) > MOST_PARTS:
        return None
    every = list(product(*(range(n + 1) for n in numbers)))
    charges = [
        min((k[0] for k, n in zip(kinds, held, strict=True) if n), default=0) for held in every
    ]
    volumes = [sum(n * sum(kind) for kind, n in zip(kinds, held, strict=True)) for held in every]
    return _Sets(charges, volumes, _split(numbers))


@lru_cache(maxsize=16)
def _split(numbers: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Sets are counted in mixed radix, the last kind fastest: a part and its rest add up."""
    radix = [math.prod(n + 1 for n in numbers[kind + 1 :]) for kind in range(len(numbers))]
    found: list[tuple[list[int], list[int]]] = []
    for index, held in enumerate(product(*(range(n + 1) for n in numbers))):
        first = next((kind for kind, n in enumerate(held) if n), None)
        parts = [0]
        for kind, (n, step) in enumerate(zip(held, radix, strict=True)):
            if n:
                counts = range((kind == first) * step, n * step + 1, step)
                parts = [part + more for part in parts for more in counts]
        found.append((parts, [index - part for part in parts]))
    return found


def _components_refute(instance: Instance, sets: _Sets, level: int) -> bool:
    """Whether groups that share devices need more of them than there are.

    Devices and the groups on them fall into connected components. One of m devices has at least
    m - 1 copies, so that with groups of work and charges V and least charge c it needs
    m * room >= V + (m - 1) * c. All ways to part the groups into components are looked at.
    """
    room, devices = level - instance.launch[0], instance.devices[0]
    needs, fewest = [0], [0]
    for index in range(1, len(sets.split)):
        charge, volume = sets.charges[index], sets.volumes[index]
        if room < charge:
            return True
        if volume == charge:
            needs.append(1)
        else:
            needs.append(-(-(volume - charge) // (room - charge)) if room > charge else devices + 1)
        parts, rests = sets.split[index]
        each = map(int.__add__, map(needs.__getitem__, parts), map(fewest.__getitem__, rests))
        fewest.append(min(each))
    return fewest[-1] > devices
