"""Whether whole items can be placed within a level: fillings, their prices, and a search.

A filling is a set of items that one device does within the level, so many of each class of equal
items. If at some prices of the items all devices, each with its dearest filling, are worth less
than all items together, no placement stays within the level (the dual of Gilmore & Gomory's
program, 1961). A small simplex proposes prices; they are rounded to whole numbers and their
dearest fillings found exactly, so that its floating point cannot make a proof wrong.

Where no prices refute the level, fillings are combined. At the best prices found a filling wastes
what it is worth less than the dearest one, and a placement wastes no more than the devices are
worth beyond the items: few fillings waste so little, and of those all combinations are tried.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from solver.verifier.bounds import Instance

ONE = 1 << 40
"""The price of 1 in whole numbers."""
UNPLACED = 2.0
"""What an item costs the program that no filling has yet; a device is worth at most 1."""
SMALLEST = 1e-9
"""A reduced cost or pivot below this is rounding noise."""
MOST_CLASSES, MOST_DEVICES = 150, 400
"""Beyond these nothing is tried: the depths of the searches."""
MOST_VISITS = 200_000
"""Of fillings and their beginnings when those of a device are listed: about a second."""
LANE = 48
"""Bits in which a number of items is packed, the highest one free."""

Counts = tuple[int, ...]


class Block(NamedTuple):
    """`groups` KV groups of equal items: every class's cost [types] and items a group."""

    charge: tuple[int, ...]
    groups: int
    classes: tuple[tuple[tuple[int, ...], int], ...]


class Kind(NamedTuple):
    """`devices` that can be filled alike: one type and, with equal counts, one number of items."""

    of_type: int
    room: int
    holding: int | None
    devices: int


class _OutOfTimeError(Exception):
    """The time came, or there were too many fillings to list."""


def reachable(instance: Instance, level: int, until: float) -> bool | None:
    """Whether some placement keeps every load within `level`; None if not known by `until`.

    `until` is a time of the monotonic clock.
    """
    blocks = _blocks(instance)
    if len(_totals(blocks)) > MOST_CLASSES or sum(instance.devices) > MOST_DEVICES:
        return None
    kinds = _kinds(instance, level)
    try:
        prices, worth = _prices(blocks, kinds, until)
        if _spare(blocks, kinds, prices, worth) < 0:
            return False
        if not _combine(blocks, kinds, prices, worth, until):
            return False
        if instance.equal_counts and kinds[0].holding is None:
            return None
        apart, prices = _told_apart(blocks, prices)
        if len(apart) == len(blocks):
            return True
        if len(prices) > MOST_CLASSES:
            return None
        return _combine(apart, kinds, prices, worth, until)
    except _OutOfTimeError:
        return None


def _blocks(instance: Instance) -> list[Block]:
    """The groups, equal ones counted; a group of one item, or without a charge, is no group."""
    free: Counter[tuple[int, ...]] = Counter()
    charged: Counter[tuple[tuple[int, ...], tuple[tuple[tuple[int, ...], int], ...]]] = Counter()
    for charge, items in instance.groups():
        if len(items) == 1:
            free[tuple(map(int.__add__, items[0], charge))] += 1
        elif any(charge):
            charged[charge, tuple(sorted(Counter(items).items()))] += 1
        else:
            free.update(items)
    none = (0,) * len(instance.devices)
    return [Block(none, number, ((cost, 1),)) for cost, number in free.items()] + [
        Block(charge, groups, classes) for (charge, classes), groups in charged.items()
    ]


def _told_apart(blocks: Sequence[Block], prices: Counts) -> tuple[list[Block], Counts]:
    """Every group a block of its own, so that what is left of it is known; with its prices."""
    apart: list[Block] = []
    repeated: list[int] = []
    first = 0
    for block in blocks:
        own = prices[first : first + len(block.classes)]
        first += len(own)
        times = block.groups if any(block.charge) else 1
        apart += [block._replace(groups=block.groups // times)] * times
        repeated += own * times
    return apart, tuple(repeated)


def _kinds(instance: Instance, level: int) -> list[Kind]:
    """The kinds of device; counts that differ between unlike devices are let go."""
    rooms = [level - launch for launch in instance.launch]
    small, larger = divmod(len(instance.whole), sum(instance.devices))
    if instance.equal_counts and larger and instance.identical:
        each = ((small + 1, larger), (small, instance.devices[0] - larger))
        return [Kind(0, rooms[0], holding, number) for holding, number in each]
    holding = small if instance.equal_counts and not larger else None
    return [Kind(t, rooms[t], holding, number) for t, number in enumerate(instance.devices)]


def _totals(blocks: Sequence[Block]) -> Counts:
    """Items of every class, `[classes]`."""
    return tuple(block.groups * each for block in blocks for _, each in block.classes)


def _spare(blocks: Sequence[Block], kinds: Sequence[Kind], prices: Counts, worth: Counts) -> int:
    """What all devices are worth beyond all items."""
    devices = sum(kind.devices * most for kind, most in zip(kinds, worth, strict=True))
    return devices - sum(map(int.__mul__, _totals(blocks), prices))


class _Step(NamedTuple):
    """How many items of a class a filling has; `each` to a group of the block, if it charges."""

    block: int
    of_class: int
    price: int
    cost: int
    most: int
    charge: int
    each: int
    spread: int
    """The cost with its part of the charge, if every group is had whole."""

    @property
    def density(self) -> float:
        """Price for cost."""
        return self.price / self.spread if self.spread else math.inf


class _Rest(NamedTuple):
    """What may yet be added: (price, cost, number), the dearest for its cost first."""

    items: list[tuple[int, int, int]]
    price: int

    def worth(self, room: int, left: int | None) -> int:
        """No addition is worth more: parts of items allowed (Dantzig 1957)."""
        total = 0
        for price, cost, number in self.items:
            if cost * number > room:
                total += price * room // cost + 1
                break
            room -= cost * number
            total += price * number
        return total if left is None else min(total, left * self.price)


def _fillings(
    blocks: Sequence[Block], kind: Kind, prices: Counts, least: int, until: float
) -> list[Counts]:
    """Every filling of a device that is worth at least so much, `[classes]`; depth first."""
    steps = _steps(blocks, kind.of_type, prices)
    fresh = [_rest(steps[at:], -1) for at in range(len(steps))]
    entered = [_rest(steps[at:], step.block) for at, step in enumerate(steps)]
    chosen = [0] * len(prices)
    found: list[Counts] = []
    visits = 0

    def go(first: int, room: int, left: int | None, value: int, block: int, groups: int) -> None:
        """Add to what is chosen, which has `groups` of `block`, from a step on."""
        nonlocal visits
        visits += 1
        if visits > MOST_VISITS or (not visits & 255 and time.monotonic() > until):
            raise _OutOfTimeError
        if not left and value >= least:
            found.append(tuple(chosen))
        for at in range(first, len(steps)):
            step = steps[at]
            inside = groups if step.block == block else 0
            rest = entered[at] if inside else fresh[at]
            if value + rest.worth(room, left) < least:
                return
            most = min(step.most, room // step.cost) if step.cost else step.most
            if left is not None:
                most = min(most, left)
            for number in range(most, 0, -1):
                have = max(inside, -(-number // step.each)) if step.each else 0
                after = room - number * step.cost - (have - inside) * step.charge
                if after >= 0:
                    chosen[step.of_class] = number
                    still = None if left is None else left - number
                    go(at + 1, after, still, value + number * step.price, step.block, have)
            chosen[step.of_class] = 0

    if kind.room >= 0:
        go(0, kind.room, kind.holding, 0, -1, 0)
    return found


def _steps(blocks: Sequence[Block], of_type: int, prices: Counts) -> list[_Step]:
    """The classes, block by block, the dearest for their cost first."""
    ordered = []
    first = 0
    for number, block in enumerate(blocks):
        size = sum(each for _, each in block.classes)
        charge = block.charge[of_type]
        steps = [
            _Step(
                block=number,
                of_class=of_class,
                price=prices[of_class],
                cost=cost[of_type],
                most=block.groups * each,
                charge=charge,
                each=each if charge else 0,
                spread=(cost[of_type] * size + charge) // size,
            )
            for of_class, (cost, each) in enumerate(block.classes, first)
        ]
        first += len(steps)
        ordered.append(sorted(steps, key=lambda step: step.density, reverse=True))
    ordered.sort(key=lambda steps: steps[0].density, reverse=True)
    return [step for steps in ordered for step in steps]


def _rest(steps: Sequence[_Step], paid: int) -> _Rest:
    """What these steps may add once some block's charge is paid."""
    items = [
        (step.price, step.cost if step.block == paid else step.spread, step.most)
        for step in steps
        if step.price and step.most
    ]
    items.sort(key=lambda item: item[0] / item[1] if item[1] else math.inf, reverse=True)
    return _Rest(items, max((price for price, _, _ in items), default=0))


class _Program:
    """Minimise z: fillings cover all items, with at most z of every kind's devices for each.

    The revised simplex with the basis's inverse; rows are the classes of items, then the kinds.
    The prices are its multipliers. It begins with every item unplaced.
    """

    def __init__(self, totals: Counts, kinds: Sequence[Kind]) -> None:
        self.classes, self.devices = len(totals), [float(kind.devices) for kind in kinds]
        rows = self.classes + len(kinds)
        self.inverse = [[float(i == j) for j in range(rows)] for i in range(rows)]
        self.values = [float(n) for n in totals] + [0.0] * len(kinds)
        self.multipliers = [UNPLACED] * self.classes + [0.0] * len(kinds)

    def settle(self) -> None:
        """Let in what is no filling: items beyond those there are, devices left over, and z."""
        rows = len(self.values)
        for _ in range(10 * rows):
            worst, column, cost = -SMALLEST, [0.0] * rows, 0.0
            for row, multiplier in enumerate(self.multipliers):
                sign = -1.0 if row < self.classes else 1.0
                if -sign * multiplier < worst:
                    worst, column = -sign * multiplier, [0.0] * rows
                    column[row] = sign
            of_kinds = zip(self.multipliers[self.classes :], self.devices, strict=True)
            if 1.0 + sum(multiplier * number for multiplier, number in of_kinds) < worst:
                column, cost = [0.0] * self.classes + [-number for number in self.devices], 1.0
            elif worst == -SMALLEST:
                return
            if not self.enter(column, cost):
                return

    def take(self, dearest: Sequence[tuple[int, Counts]]) -> bool:
        """Let in one of these fillings, [kinds] with what they are worth, if any is too dear."""
        limits = self.multipliers[self.classes :]
        reduced, kind = min(
            (-limit - value / ONE, k)
            for k, (limit, (value, _)) in enumerate(zip(limits, dearest, strict=True))
        )
        if reduced >= -SMALLEST:
            return False
        column = [float(number) for number in dearest[kind][1]] + [0.0] * len(limits)
        column[self.classes + kind] = 1.0
        return self.enter(column, 0.0)

    def enter(self, column: Sequence[float], cost: float) -> bool:
        """Bring a column into the basis; whether that was possible."""
        steps = [sum(map(float.__mul__, row, column)) for row in self.inverse]
        ratios = [
            (value / step, -step, row)
            for row, (value, step) in enumerate(zip(self.values, steps, strict=True))
            if step > SMALLEST
        ]
        if not ratios:
            return False
        ratio, _, leaving = min(ratios)
        reduced = cost - sum(map(float.__mul__, self.multipliers, column))
        pivot = [entry / steps[leaving] for entry in self.inverse[leaving]]
        for row, step in enumerate(steps):
            if row != leaving and step:
                self.inverse[row] = [
                    a - step * b for a, b in zip(self.inverse[row], pivot, strict=True)
                ]
                self.values[row] = max(0.0, self.values[row] - step * ratio)
        self.inverse[leaving], self.values[leaving] = pivot, ratio
        self.multipliers = [a + reduced * b for a, b in zip(self.multipliers, pivot, strict=True)]
        return True


def _prices(blocks: Sequence[Block], kinds: Sequence[Kind], until: float) -> tuple[Counts, Counts]:
    """Prices [classes] and what a device of every kind is worth by them, [kinds]: the best found.

    Column generation: the dearest filling of a kind enters the program until none is too dear for
    it, or the prices refute the level.
    """
    totals = _totals(blocks)
    none = (0,) * len(totals)
    listed = [[none, *_fillings(blocks, kind, none, 0, until)] for kind in kinds]
    program = _Program(totals, kinds)
    best: tuple[Counts, Counts] | None = None
    least = math.inf
    while time.monotonic() < until:
        program.settle()
        prices = tuple(max(0, int(m * ONE)) for m in program.multipliers[: len(totals)])
        dearest = [max((_worth(filling, prices), filling) for filling in of) for of in listed]
        worth = tuple(value for value, _ in dearest)
        devices = sum(kind.devices * value for kind, value in zip(kinds, worth, strict=True))
        spare = _spare(blocks, kinds, prices, worth)
        if best is None or spare < least * devices:
            least, best = spare / max(devices, 1), (prices, worth)
        if spare < 0 or not program.take(dearest):
            return best
    raise _OutOfTimeError


def _worth(filling: Counts, prices: Counts) -> int:
    return sum(map(int.__mul__, filling, prices))


class _Filling(NamedTuple):
    """A filling that may be part of a placement, its items packed into one number."""

    waste: int
    kind: int
    packed: int
    classes: Counts


def _combine(
    blocks: Sequence[Block],
    kinds: Sequence[Kind],
    prices: Counts,
    worth: Counts,
    until: float,
) -> bool:
    """Whether some fillings, one a device, have every item once."""
    totals = _totals(blocks)
    spare = _spare(blocks, kinds, prices, worth)
    fillings: list[_Filling] = []
    for k, kind in enumerate(kinds):
        for chosen in _fillings(blocks, kind, prices, worth[k] - spare, until):
            used = tuple(c for c, number in enumerate(chosen) if number)
            waste = worth[k] - _worth(chosen, prices)
            fillings.append(_Filling(waste, k, _packed(chosen), used))
    lanes = [((1 << LANE) - 1) << LANE * c for c in range(len(totals))]
    guard = sum(1 << LANE * c + LANE - 1 for c in range(len(totals)))
    failed: set[tuple[int, Counts]] = set()

    def place(rest: int, left: Counts, spare: int, fillings: list[_Filling]) -> bool:
        """Fill a device with the class of items that the fewest fillings have."""
        if time.monotonic() > until:
            raise _OutOfTimeError
        if not rest:
            return True
        if (rest, left) in failed:
            return False
        above = rest | guard
        fillings = [
            filling
            for filling in fillings
            if filling.waste <= spare
            and left[filling.kind]
            and (above - filling.packed) & guard == guard
        ]
        times = [0] * len(totals)
        for filling in fillings:
            for c in filling.classes:
                times[c] += 1
        lane = lanes[min((c for c in range(len(totals)) if rest & lanes[c]), key=times.__getitem__)]
        these = [filling for filling in fillings if filling.packed & lane]
        others = [filling for filling in fillings if not filling.packed & lane]
        for index, filling in enumerate(these):
            # What was tried before is not tried again under it: no placement of `rest` has it.
            rest_left = tuple(n - (k == filling.kind) for k, n in enumerate(left))
            if place(
                rest - filling.packed, rest_left, spare - filling.waste, these[index:] + others
            ):
                return True
        failed.add((rest, left))
        return False

    return place(_packed(totals), tuple(kind.devices for kind in kinds), spare, sorted(fillings))


def _packed(numbers: Counts) -> int:
    return sum(number << LANE * c for c, number in enumerate(numbers))
