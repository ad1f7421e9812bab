"""The `influence` policy: what is not recovered, weighed by what it does to the loss, at its least.

Minimises the sum over heads of influence_h * (1 - R_h(b_h)) with sum of cost(b_h) at most a total
and b_h at least a floor: `max_min` with a weighted mean in place of the minimum. The weights follow
MoA (arXiv 2406.14909): how much the model's loss moves with a head's attention, from gradients.
That is a multiple-choice knapsack with one capacity (`solver.budgets.multiple_choice`), whose
rules are all budgets of whole pieces; curves need not be concave.
"""

from dataclasses import dataclass

import numpy as np

from solver.budgets.curves import Floats, Ints, RecoveryCurves
from solver.budgets.errors import BudgetError
from solver.budgets.max_min import Cost, max_min
from solver.budgets.multiple_choice import (
    Chosen,
    MultipleChoice,
    along_the_hulls,
    one_rule,
    search,
    upgraded,
)
from solver.budgets.undominated import undominated
from solver.deadline import Deadline

MAX_ENTRIES = 2**24
"""Heads x pieces: a table of 128 MiB."""


@dataclass(frozen=True, eq=False)
class Weighed:
    """pieces [layers, heads], and their loss: the sum of weight * (1 - recovery).

    Weights are influences over their mean; no budgets that keep the totals lose less than
    `lower_bound`.
    """

    pieces: Ints
    loss: float
    lower_bound: float

    @property
    def gap(self) -> float:
        return 1 - self.lower_bound / self.loss if self.loss > 0 else 0.0


def least_loss(
    curves: RecoveryCurves,
    influence: Floats,
    each: int,
    floor: int,
    cost: Cost,
    tolerance: float,
    deadline: Deadline,
) -> Weighed:
    """Every layer draws at most what `each` pieces a head would; `floor` is at most `each`.

    influence [layers, heads], not negative; where a layer has none its heads count alike. Never
    more loss than `max_min`, nor than the same budget for all. The search ends when the loss is
    proved within `tolerance`, or at the deadline with the best so far. No pieces are given that
    lower no loss. Raises BudgetError above MAX_ENTRIES.
    """
    layers, heads = influence.shape
    if layers * heads * curves.context_pieces > MAX_ENTRIES:
        raise BudgetError(
            f"policy 'influence': {layers * heads * curves.context_pieces} head-pieces at a "
            f"context of {curves.context_tokens} tokens are more than the {MAX_ENTRIES} it can "
            "choose from; use larger pieces, or policy 'max_min', which has no such limit"
        )
    if each == floor:
        pieces = np.full((layers, heads), floor, dtype=np.int64)
        loss = float((weights(influence) * (1 - curves.at(pieces))).sum())
        return Weighed(pieces, loss, loss)
    budgets = np.arange(floor, curves.context_pieces + 1, dtype=np.int64)
    drawn = cost(budgets)[:, None]
    capacity = heads * cost(np.array([each]))
    lost = weights(influence)[..., None] * (1 - curves.table()[..., floor - 1 :])
    programs = [MultipleChoice(layer, drawn, capacity) for layer in lost]
    solved = []
    for program, fair in zip(programs, max_min(curves, each, floor, cost), strict=True):
        start = min(one_rule(program), Chosen.of(program, fair - floor), key=lambda c: c.loss)
        cut_short = deadline.cancelled.is_set()
        solved.append(start if cut_short else along_the_hulls(program, start))
    search(programs, solved, tolerance, deadline, undominated)
    rules = [_thrifty(p, answer.choice) for p, answer in zip(programs, solved, strict=True)]
    return Weighed(
        pieces=budgets[np.stack(rules)],
        loss=sum(p.total(choice) for p, choice in zip(programs, rules, strict=True)),
        lower_bound=sum(answer.bound for answer in solved),
    )


def weights(influence: Floats) -> Floats:
    """Influences `[layers, heads]` over their mean; alike in a layer that has none."""
    if not influence.any():
        return np.ones_like(influence)
    # The largest first: neither huge nor tiny figures overflow or vanish.
    scaled = influence / influence.max()
    return np.where(influence.any(axis=1, keepdims=True), scaled / scaled.mean(), 1.0)


def _thrifty(program: MultipleChoice, choice: Ints) -> Ints:
    """The least budgets of the same loss, and what that sets free spent where it lowers any."""
    held = np.take_along_axis(program.loss, choice[:, None], axis=1)
    least = (program.loss <= held).argmax(axis=1)
    return upgraded(program, least, np.ones(len(program.capacity)))
