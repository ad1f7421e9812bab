"""What a profile promises of a plan: every head's recovery at its budget."""

from collections.abc import Sequence

import numpy as np

from api.loop.drift import Floats, PromisedRecovery
from profiles.cost.work import budget_pieces
from profiles.heads import Curves, CurvesForm
from profiles.model import ModelProfile
from solver.budgets.basis import Basis
from solver.budgets.options import BudgetOptions
from solver.plans import Plan


def promise(profile: ModelProfile, plan: Plan) -> PromisedRecovery | None:
    """Of the selector's curves where the profile has them; None where it has no curves at all.

    The plan is of the profile's architecture, and its first workload the one that runs.
    """
    heads = profile.heads
    basis = Basis.of(profile, BudgetOptions())
    if not isinstance(heads, CurvesForm) or basis is None:
        return None
    workload = plan.workload.workload
    pieces = budget_pieces(np.array(plan.budgets, dtype=np.float64), workload)
    curves = basis.expected.at(workload)
    spread = heads.selected_spread if basis.curve == "selected" else heads.spread
    shares, measured = curves.share(pieces), profile.measurement
    return PromisedRecovery(
        curves.at(pieces),
        None if spread is None else _spread_at(heads, spread, shares, workload.context_tokens),
        None if measured is None else max(sum(measured.prompts.values()), 1),
    )


def least_promised(profile: ModelProfile, plan: Plan, layers: Sequence[int]) -> float:
    """The least recovery of any head of some layers, of a profile that has curves."""
    promised = promise(profile, plan)
    assert promised is not None
    return float(promised.recovery[list(layers)].min())


def _spread_at(form: CurvesForm, spread: Curves, shares: Floats, context_tokens: int) -> Floats:
    """Spread at shares of the context [layers, heads], at the measured context nearest in log.

    The whole context recovers everything, on every prompt.
    """
    apart = np.abs(np.log(np.array(form.context_tokens) / context_tokens))
    nearest = int(apart.argmin())
    known = np.array(form.budget_tokens[nearest]) / form.context_tokens[nearest]
    found = [
        [np.interp(share, known, curve[nearest]) for share, curve in zip(*layer, strict=True)]
        for layer in zip(shares, spread, strict=True)
    ]
    return np.where(shares < 1, np.array(found), 0.0)
