"""Idle time of a placement spent on larger budgets, in a request's own terms."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from profiles.cost.work import budget_pieces
from solver.budgets.errors import BudgetError
from solver.budgets.fill_bubble import fill_bubble
from solver.planning.costs import Demand, placement_problem
from solver.planning.scenarios import Scenario
from solver.plans import Filled
from solver.problem import PlacementProblem
from solver.request import PlacementOptions, PlanRequest
from solver.shares import Ints, Shares


def fill(
    request: PlanRequest,
    problem: PlacementProblem,
    shares: Sequence[Shares],
    steps: Sequence[Scenario],
) -> tuple[Filled, list[Scenario]]:
    """What was gained, and the one workload with its larger budgets.

    `problem` is by head, `shares` [layers] what runs. Raises BudgetError where
    there is more than one workload or the profile has no recovery curves.
    """
    [step] = steps
    curves, expected = step.budgets.cautious, step.budgets.expected
    if curves is None or expected is None:
        raise BudgetError(
            f"budget.fill: needs recovery curves to know what a larger budget brings; profile "
            f"{step.known.profile.name!r} has the form {step.known.profile.heads.form!r}"
        )
    [loads] = problem.loads_of_each([shares])

    @lru_cache(maxsize=1)
    def costed_of(content: bytes) -> PlacementProblem:
        tokens = np.frombuffer(content, dtype=np.int64).reshape(step.budgets.tokens.shape)
        return placement_problem(
            [Demand(step.workload, tokens, step.known.rates, selection=step.selection)],
            step.known.profile.architecture,
            request.device_types,
            PlacementOptions(
                divisible=request.placement.divisible,
                copies=request.placement.copies,
                slots=request.placement.slots,
            ),
        )

    def costed(tokens: Ints) -> PlacementProblem:
        """Heads and groups are asked for one after the other, of the same budgets."""
        return costed_of(np.ascontiguousarray(tokens, dtype=np.int64).tobytes())

    tokens = fill_bubble(
        step.budgets.tokens,
        curves,
        step.workload,
        np.stack([own.dense for own in shares]),
        loads.max(axis=1, keepdims=True) - loads,
        lambda tokens: costed(tokens).head_s[0][..., problem.type_of],
        lambda tokens: costed(tokens).group_s[0][..., problem.type_of],
    )
    before, after = (
        expected.at(budget_pieces(np.asarray(each, dtype=np.float64), step.workload))
        for each in (step.budgets.tokens, tokens)
    )
    report = Filled(
        added_tokens=int(tokens.sum() - step.budgets.tokens.sum()),
        recovery_mean=(float(before.mean()), float(after.mean())),
        recovery_min=(float(before.min()), float(after.min())),
    )
    budgets = replace(step.budgets, tokens=tokens, recovery=after, rules=None)
    return report, [replace(step, budgets=budgets)]
