"""The `elastic` policy: for every head a rule alpha + beta * context, which holds at any length.

MoA (arXiv 2406.14909) chooses the rules from a menu by a mixed-integer program: the least loss
with the density at most a bound at every one of several contexts. That is a multiple-choice
knapsack with a capacity for each context (`solver.budgets.multiple_choice`).

Loss is 1 - recovery, averaged over the contexts; MoA's limit of two rules a layer is not kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from profiles.cost.work import Workload, budget_pieces
from solver.budgets.curves import Floats, Ints, RecoveryCurves, interpolate
from solver.budgets.errors import BudgetError
from solver.budgets.multiple_choice import (
    MultipleChoice,
    along_the_hulls,
    by_cbc,
    one_rule,
    search,
)
from solver.deadline import Deadline

Cost = Callable[[Ints, int], Ints]
"""What budgets in whole pieces draw at a context of so many tokens: rises with the pieces."""

BETAS = np.arange(9) / 8
ALPHAS = 32
"""Steps of alpha up to the shortest context: of 1,024 tokens, as MoA's, where that is 32K."""


@dataclass(frozen=True, eq=False)
class Menu:
    """Rules to choose from: alpha [rules] tokens, beta [rules] share of the context.

    One of them is the smallest at every context. `workload` is the step they are for, at any.
    """

    alpha: Ints
    beta: Floats
    workload: Workload

    @classmethod
    def of(cls, contexts: Sequence[int], workload: Workload) -> Self:
        """Betas in eighths and alphas from - to + the shortest context, no two alike everywhere.

        Alphas are multiples of a step, and its halves down to a piece: sparse heads need little.
        """
        pieces = max(1, min(contexts) // workload.piece_tokens)
        step = -(-pieces // ALPHAS)
        halves = [step // 2**n for n in range(step.bit_length())]
        sizes = workload.piece_tokens * np.array([*halves, *range(0, pieces + 1, step)])
        beta, alpha = np.meshgrid(BETAS, np.union1d(-sizes, sizes), indexing="ij")
        # As in MoA, a rule gives something everywhere; here also the least there is.
        positive = (alpha + beta * min(contexts) > 0) | ((alpha == 0) & (beta == 0))
        every = cls(alpha[positive], beta[positive], workload)
        _, first = np.unique(every.pieces(contexts), axis=0, return_index=True)
        return cls(every.alpha[first], every.beta[first], workload)

    def pieces(self, contexts: Sequence[int]) -> Ints:
        """Whole pieces of every rule, `[rules, contexts]`: the shortest list to all."""
        at_each = [replace(self.workload, context_tokens=n) for n in contexts]
        rules = [(self.alpha + self.beta * at.context_tokens, at) for at in at_each]
        return np.stack([budget_pieces(tokens, at) for tokens, at in rules], axis=1)


@dataclass(frozen=True, eq=False)
class ElasticRules:
    """alpha [layers, heads] tokens and beta [layers, heads] share of the context.

    loss: summed over heads, averaged over `contexts`; no choice from the menu that keeps the
    bound on density has less than `lower_bound`. density [contexts]: the mean attended share.
    """

    alpha: Ints
    beta: Floats
    loss: float
    lower_bound: float
    density: Floats
    contexts: tuple[int, ...]

    @property
    def gap(self) -> float:
        return 1 - self.lower_bound / self.loss if self.loss > 0 else 0.0


def elastic(
    curves: Sequence[RecoveryCurves],
    menu: Menu,
    cost: Cost,
    density: float,
    tolerance: float,
    deadline: Deadline,
) -> ElasticRules:
    """Every head's rule: each layer attends to a share of at most `density` at every context.

    `curves` of one model, for each context; where they are pooled the bound is the model's.
    Bounds and the greedy choice take some 30 ms a layer, whatever the clock says; the search ends
    when the loss is proved within `tolerance`, or at the deadline with the best so far.
    Raises BudgetError where even the menu's smallest rules are above the bound.
    """
    contexts = tuple(c.context_tokens for c in curves)
    pieces = menu.pieces(contexts)
    by_cost = np.argsort(pieces.sum(axis=1), kind="stable")
    pieces = pieces[by_cost]
    drawn = np.stack([cost(b, n) for b, n in zip(pieces.T, contexts, strict=True)], axis=1)
    full = np.array([int(cost(np.array(c.context_pieces), c.context_tokens)) for c in curves])
    heads = curves[0].recovery.shape[1]
    # The product may fall short of a whole number that it stands for.
    capacity = np.floor(full * heads * density * (1 + 1e-12)).astype(np.int64)
    if (drawn[0] * heads > capacity).any():
        least = float((drawn[0] / full).max())
        raise BudgetError(
            f"budget.density: {density:.6g} is less than the smallest rule attends to: at least "
            f"{least:.6g} is needed at contexts of {', '.join(map(str, contexts))} tokens"
        )
    shares = [c.share(b)[None, None] for b, c in zip(pieces.T, curves, strict=True)]
    at = [interpolate(c.shares, c.recovery, s) for s, c in zip(shares, curves, strict=True)]
    loss = 1 - np.mean(at, axis=0)
    programs = [MultipleChoice(layer, drawn, capacity) for layer in loss]
    solved = [one_rule(program) for program in programs]
    for index, program in enumerate(programs):
        if not deadline.cancelled.is_set():
            solved[index] = along_the_hulls(program, solved[index])
    search(programs, solved, tolerance, deadline, by_cbc)
    choice = np.stack([answer.choice for answer in solved])
    return ElasticRules(
        alpha=menu.alpha[by_cost][choice],
        beta=menu.beta[by_cost][choice],
        loss=sum(answer.loss for answer in solved),
        lower_bound=sum(answer.bound for answer in solved),
        density=drawn[choice].mean(axis=(0, 1)) / full,
        contexts=contexts,
    )
