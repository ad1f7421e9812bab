"""The multiple-choice knapsack with several capacities, through PuLP, and what bounds it.

    minimise    sum_h sum_r loss[h, r] x[h, r]
    sum_r x[h, r] = 1                                    every head has one rule
    sum_h sum_r cost[r, c] x[h, r] <= capacity[c]        every context keeps the bound

Prices of the capacities (Kelley's cutting planes, 1960) give the bound of the linear relaxation,
and the way along the heads' convex hulls a start (Sinha and Zoltners, Operations Research 27,
1979). What these two rule out is dropped; CBC settles the rest, or where there is one capacity,
`solver.budgets.undominated`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import pulp
from scipy.optimize import linprog

from solver.budgets.curves import Floats, Ints
from solver.deadline import Deadline
from solver.exact.cbc import CBC_SAFETY, LEAST_TIME_S, quiet, run_cbc

CUTS = 100
HALVINGS = 40
PRICED = 1e-5
"""Share of the loss that the prices may be short of the best ones."""
ROUNDING = 1e-9
"""Floating-point bounds are lowered by this share of what they were added up from."""


@dataclass(frozen=True, eq=False)
class MultipleChoice:
    """loss [heads, rules]; cost [rules, contexts]; capacity [contexts].

    Rule 0 costs the least everywhere. A choice is the rule of every head, `[heads]`.
    """

    loss: Floats
    cost: Ints
    capacity: Ints

    @cached_property
    def share(self) -> Floats:
        """Cost as a share of the capacity, `[rules, contexts]`."""
        return np.asarray(self.cost / self.capacity, dtype=np.float64)

    def total(self, choice: Ints) -> float:
        return float(np.take_along_axis(self.loss, choice[:, None], axis=1).sum())

    def fits(self, choice: Ints) -> bool:
        return bool((self.cost[choice].sum(axis=0) <= self.capacity).all())

    def priced(self, prices: Floats) -> Floats:
        """Loss plus what a rule's share of the capacities costs, `[heads, rules]`."""
        return np.asarray(self.loss + self.share @ prices, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Chosen:
    """A choice, its loss, and what no choice can have less than, at `prices` [contexts]."""

    choice: Ints
    loss: float
    bound: float
    prices: Floats

    @classmethod
    def of(cls, program: MultipleChoice, choice: Ints) -> Self:
        """A choice that fits, and no bound yet."""
        return cls(choice, program.total(choice), 0.0, np.zeros(len(program.capacity)))


Settle = Callable[[MultipleChoice, Chosen, float, Deadline], Chosen]
"""The best choice within a gap, as far as the deadline allows: never worse than the start."""


def one_rule(program: MultipleChoice) -> Chosen:
    """The best single rule for all heads, and no bound yet."""
    heads = len(program.loss)
    fits = (program.cost * heads <= program.capacity).all(axis=1)
    rule = int(np.where(fits, program.loss.sum(axis=0), np.inf).argmin())
    return Chosen.of(program, np.full(heads, rule, dtype=np.int64))


def along_the_hulls(program: MultipleChoice, other: Chosen) -> Chosen:
    """A bound, and the better of `other` and the choice along the heads' convex hulls.

    As all prices fall together, every head walks along its hull, the steepest gain first.
    """
    prices, bound = _best_prices(program)
    slope = prices + 1e-3 * prices.max() if prices.any() else np.ones(len(prices))
    low, high = 0.0, 1.0
    while not program.fits(program.priced(high * slope).argmin(axis=1)):
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fitting = program.fits(program.priced(middle * slope).argmin(axis=1))
        low, high = (low, middle) if fitting else (middle, high)
    along = upgraded(program, program.priced(high * slope).argmin(axis=1), slope)
    choice = min(along, other.choice, key=program.total)
    loss = program.total(choice)
    return Chosen(choice, loss, min(bound, loss), prices)


def _best_prices(program: MultipleChoice) -> tuple[Floats, float]:
    """Prices `[contexts]` at which the priced choice is dearest, and the bound that this is.

    At any prices, the least priced loss less the capacities' own price is a lower bound.
    """
    cheapest = np.zeros(len(program.loss), dtype=np.int64)
    slack = 1 - program.share[0] * len(cheapest)
    limit = program.total(cheapest) / np.maximum(slack, 1e-6)
    losses, excesses = [program.total(cheapest)], [-slack]
    prices = best = np.zeros(len(slack))
    bound = -np.inf
    for _ in range(CUTS):
        priced = program.priced(prices)
        choice = priced.argmin(axis=1)
        least, paid = float(priced.min(axis=1).sum()), float(prices.sum())
        rounding = ROUNDING * (least + paid)
        if least - paid - rounding > bound:
            best, bound = prices, least - paid - rounding
        losses.append(program.total(choice))
        excesses.append(program.share[choice].sum(axis=0) - 1)
        highest = _highest(np.array(losses), np.array(excesses), limit)
        if highest is None or highest[-1] - bound <= PRICED * bound + 2 * rounding:
            break
        prices = highest[:-1]
    return best, max(bound, 0.0)


def _highest(losses: Floats, excesses: Floats, limit: Floats) -> Floats | None:
    """Prices up to `limit` [contexts] at which no cut is low, and how high the lowest is there.

    Cuts rise by their `excesses` [cuts, contexts] from `losses` [cuts] at no prices. None where the
    program is not solved.
    """
    if len(limit) > 1:
        cuts = np.column_stack([-excesses, np.ones(len(losses))])
        goal = np.append(np.zeros(len(limit)), -1.0)
        limits = [*((0, most) for most in limit), (None, None)]
        return linprog(goal, A_ub=cuts, b_ub=losses, bounds=limits).x
    # Of one price, where the flattest cuts that rise and fall cross: lines of a concave envelope.
    slopes = excesses[:, 0]
    if slopes.max() <= 0:
        return np.array([0.0, losses.min()])
    rise, fall = (
        members[np.lexsort((losses[members], np.abs(slopes[members])))[0]]
        for members in (np.flatnonzero(slopes > 0), np.flatnonzero(slopes <= 0))
    )
    price = (losses[fall] - losses[rise]) / (slopes[rise] - slopes[fall])
    return np.array([price, losses[rise] + slopes[rise] * price])


def upgraded(program: MultipleChoice, choice: Ints, slope: Floats) -> Ints:
    """Spend what is left of the capacities, the most gain for its price first."""
    choice = choice.copy()
    left = program.capacity - program.cost[choice].sum(axis=0)

    def best(heads: Ints) -> tuple[Ints, Floats]:
        """Of each head the rule that is worth most of those that fit, and its worth."""
        held, of_head = np.unique(choice[heads], return_inverse=True)
        extra = program.cost - program.cost[held][:, None]
        fits = (extra <= left).all(axis=-1)
        price = np.maximum((extra / program.capacity) @ slope, 1e-15)
        loss = program.loss[heads]
        gain = np.take_along_axis(loss, choice[heads, None], axis=1) - loss
        worth = np.where(fits[of_head] & (gain > 0), gain / price[of_head], 0.0)
        return worth.argmax(axis=1), worth.max(axis=1)

    rules, worth = best(np.arange(len(choice)))
    while worth.max() > 0:
        # Less and less fits: what a head was found worth earlier is the most that it can be.
        head = int(worth.argmax())
        extra = program.cost[rules[head]] - program.cost[choice[head]]
        if (extra <= left).all():
            choice[head] = rules[head]
            left = left - extra
        rules[head : head + 1], worth[head : head + 1] = best(np.array([head]))
    return choice


def search(
    programs: list[MultipleChoice],
    solved: list[Chosen],
    tolerance: float,
    deadline: Deadline,
    settle: Settle,
) -> None:
    """Settle programs one by one, the largest gap first, until the sum is within the tolerance."""
    unproved = [index for index, answer in enumerate(solved) if answer.loss > answer.bound]
    widest = sorted(unproved, key=lambda i: solved[i].bound - solved[i].loss)
    for done, index in enumerate(widest):
        loss, bound = sum(answer.loss for answer in solved), sum(answer.bound for answer in solved)
        if loss - bound <= tolerance * loss or deadline.left_s < LEAST_TIME_S:
            return
        share = deadline.within(2 * deadline.left_s / (len(widest) - done))
        solved[index] = settle(programs[index], solved[index], tolerance / 2, share)


def by_cbc(program: MultipleChoice, start: Chosen, gap: float, deadline: Deadline) -> Chosen:
    """Settled by the integer program over the rules that may yet be part of a better choice.

    Taking another rule than the one of least price adds at least the difference to the bound.
    """
    priced = program.priced(start.prices)
    reduced = priced - priced.min(axis=1, keepdims=True)
    slack = ROUNDING * (1 + start.loss + start.prices.sum())
    heads, rules = np.nonzero(reduced <= start.loss - start.bound + slack)
    scale = 1000 / start.loss
    with quiet():
        problem = pulp.LpProblem("knapsack", pulp.LpMinimize)
        names = [(int(head), int(rule)) for head, rule in zip(heads, rules, strict=True)]
        x = {(h, r): pulp.LpVariable(f"x_{h}_{r}", 0, 1, "Binary") for h, r in names}
        for (head, rule), variable in x.items():
            variable.setInitialValue(int(start.choice[head] == rule))
        problem += pulp.lpSum(scale * program.loss[pair] * v for pair, v in x.items())
        for head in range(len(program.loss)):
            problem += pulp.lpSum(x[head, int(r)] for r in rules[heads == head]) == 1
        for share in 1000 * program.share.T:
            problem += pulp.lpSum(share[rule] * v for (_, rule), v in x.items()) <= 1000
    outcome = run_cbc(problem, gap, deadline)
    if outcome == "nothing":
        return start
    taken = np.zeros(program.loss.shape)
    taken[heads, rules] = [variable.value() or 0.0 for variable in x.values()]
    found, bound = taken.argmax(axis=1), start.bound
    if outcome == "optimal":
        # Whatever takes a rule that was dropped loses more than the start.
        proved = float(pulp.value(problem.objective)) / scale * (1 - gap) * CBC_SAFETY
        bound = max(bound, min(proved, start.loss))
    if not program.fits(found) or program.total(found) >= start.loss:
        return replace(start, bound=bound)
    loss = program.total(found)
    return Chosen(found, loss, min(bound, loss), start.prices)
