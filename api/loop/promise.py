"""What a profile promises of a plan: every head's recovery at its budget.

Of the workload that runs, or of the very rows that an engine brought: a curve is a mean over the
rows of whole prompts, early and late, and a prompt's beginning is a prompt itself. So rows from
position a up to c recover what the whole prompt of c tokens does less what its first a do,
(c R(c) - a R(a)) / (c - a), R the curve at the head's budget: of all chunks of a prompt together
R(c), of late rows and of decodes less than R says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from api.loop.drift import Floats, PromisedRecovery
from api.loop.engine_rows import EngineRows, Ints
from profiles.cost.work import Workload, budget_pieces
from profiles.heads import Curves, CurvesForm
from profiles.model import ModelProfile
from solver.budgets.basis import Basis
from solver.budgets.curves import MeasuredCurves
from solver.budgets.options import BudgetOptions
from solver.plans import Plan


@dataclass(frozen=True, eq=False)
class Promise:
    """What `form`'s `curves` promise of a plan's budgets: of the selector's where the profile has
    them. `spread` is theirs over prompts, `prompts` how many there were, where that is known."""

    form: CurvesForm
    curves: MeasuredCurves
    spread: Curves | None
    prompts: int | None
    budgets: Floats
    workload: Workload

    @classmethod
    def of(cls, profile: ModelProfile, plan: Plan) -> "Promise | None":
        """None where the profile has no curves at all.

        The plan is of the profile's architecture, and its first workload the one that runs.
        """
        form, basis = profile.heads, Basis.of(profile, BudgetOptions())
        if not isinstance(form, CurvesForm) or basis is None:
            return None
        measured = profile.measurement
        return cls(
            form,
            basis.expected,
            form.selected_spread if basis.curve == "selected" else form.spread,
            None if measured is None else max(sum(measured.prompts.values()), 1),
            np.array(plan.budgets, dtype=np.float64),
            plan.workload.workload,
        )

    def recovery(self) -> PromisedRecovery:
        """Of the workload that runs."""
        curves = self.curves.at(self.workload)
        found = curves.at(budget_pieces(self.budgets, self.workload))
        return self.with_spread(PromisedRecovery(found), self.workload.context_tokens)

    def with_spread(self, promised: PromisedRecovery, context_tokens: int) -> PromisedRecovery:
        """Means of such a context, with what they spread."""
        spread = None
        if self.spread is not None:
            of = replace(self.workload, context_tokens=context_tokens)
            tokens = budget_pieces(self.budgets, of) * of.piece_tokens
            shares = np.minimum(tokens, context_tokens) / context_tokens
            spread = _spread_at(self.form, self.spread, shares, context_tokens)
        return replace(promised, spread=spread, prompts=self.prompts)

    def of_rows(self, seen: EngineRows) -> EngineRows:
        """The rows that their budgets may cost something, with what is promised of these."""
        tokens = self._tokens(seen)
        whole = seen.last * self.curves.points(seen.layer, seen.head, tokens, seen.last)
        begun = np.maximum(seen.first, 1)
        before = seen.first * self.curves.points(seen.layer, seen.head, tokens, begun)
        promised = np.clip((whole - before) / (seen.last - seen.first), 0.0, 1.0)
        return replace(seen, promised=promised).only(tokens < seen.last)

    def at_measured(self, seen: EngineRows) -> tuple[Floats, Floats]:
        """Expected and observed recovery at the contexts that the curves were measured at, [layers,
        heads, contexts]: of each the rows that it was interpolated for, by its weight in that. NaN
        observed where there are none."""
        shape = (*self.budgets.shape, len(self.curves.context_tokens))
        lower, upper, weight = self.curves.around(seen.last)
        total, promised, observed = (np.zeros(shape) for _ in range(3))
        for context, share in ((lower, 1 - weight), (upper, weight)):
            place, counts = (seen.layer, seen.head, context), share * seen.rows
            np.add.at(total, place, counts)
            np.add.at(promised, place, counts * seen.promised)
            np.add.at(observed, place, counts * seen.recovery)
        known = total > 0
        expected = np.divide(promised, total, out=np.zeros(shape), where=known)
        found = np.divide(observed, total, out=np.full(shape, np.nan), where=known)
        return np.clip(expected, 0.0, 1.0), np.clip(found, 0.0, 1.0)

    def _tokens(self, seen: EngineRows) -> Ints:
        """Budgets of the reported heads in whole pieces, as lists have them; [reports]."""
        piece, own = self.workload.piece_tokens, self.workload.block_pieces
        pieces = np.ceil(self.budgets[seen.layer, seen.head] / piece).astype(np.int64)
        return np.maximum(pieces, np.where(seen.prefill, own, 1)) * piece


def least_promised(profile: ModelProfile, plan: Plan, layers: Sequence[int]) -> float:
    """The least recovery of any head of some layers, of a profile that has curves."""
    promised = Promise.of(profile, plan)
    assert promised is not None
    return float(promised.recovery().recovery[list(layers)].min())


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
