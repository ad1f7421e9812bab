"""Whole-piece budgets of a fixed total that lose least: the knapsack of `least_error`.

Minimises the sum over heads of lost_h(b_h) with sum of cost(b_h) at most a total and b_h at least a
floor, whatever is lost: `max_min` with a sum in place of the minimum. That is a multiple-choice
knapsack with one capacity (`solver.budgets.multiple_choice`), whose rules are all budgets of whole
pieces; what is lost need not be convex in the budget.
"""

from dataclasses import dataclass

import numpy as np

from solver.budgets.curves import Floats, Ints
from solver.budgets.max_min import Cost
from solver.budgets.multiple_choice import (
    MultipleChoice,
    along_the_hulls,
    one_rule,
    search,
    upgraded,
)
from solver.budgets.undominated import undominated
from solver.deadline import Deadline


@dataclass(frozen=True, eq=False)
class LeastLoss:
    """pieces [pools, heads], and the sum that they lose.

    No budgets that keep the totals lose less than `lower_bound`.
    """

    pieces: Ints
    loss: float
    lower_bound: float

    @property
    def gap(self) -> float:
        return max(0.0, 1 - self.lower_bound / self.loss) if self.loss > 0 else 0.0


def least_loss(
    lost: Floats,
    total: int,
    floor: int,
    cost: Cost,
    tolerance: float,
    deadline: Deadline,
) -> LeastLoss:
    """Every pool draws at most `total`, which is enough for the `floor` of all its heads.

    lost [pools, heads, pieces]: entry i is what a budget of i + 1 pieces loses, not negative. Never
    more than the same budget for all loses. The search ends when the loss is proved within
    `tolerance`, or at the deadline with the best so far. No pieces are given that lower no loss.
    """
    budgets = np.arange(floor, lost.shape[-1] + 1, dtype=np.int64)
    drawn = cost(budgets)[:, None]
    if total == lost.shape[1] * drawn[0, 0]:
        pieces = np.full(lost.shape[:-1], floor, dtype=np.int64)
        loss = float(lost[..., floor - 1].sum())
        return LeastLoss(pieces, loss, loss)
    capacity = np.array([total])
    programs = [MultipleChoice(pool, drawn, capacity) for pool in lost[..., floor - 1 :]]
    solved = []
    for program in programs:
        known = one_rule(program)
        cut_short = deadline.cancelled.is_set()
        solved.append(known if cut_short else along_the_hulls(program, known))
    search(programs, solved, tolerance, deadline, undominated)
    rules = [_thrifty(p, answer.choice) for p, answer in zip(programs, solved, strict=True)]
    return LeastLoss(
        pieces=budgets[np.stack(rules)],
        loss=sum(p.total(choice) for p, choice in zip(programs, rules, strict=True)),
        lower_bound=sum(answer.bound for answer in solved),
    )


def _thrifty(program: MultipleChoice, choice: Ints) -> Ints:
    """The least budgets of the same loss, and what that sets free spent where it lowers any."""
    held = np.take_along_axis(program.loss, choice[:, None], axis=1)
    least = (program.loss <= held).argmax(axis=1)
    return upgraded(program, least, np.ones(len(program.capacity)))
