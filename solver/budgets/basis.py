"""Which of a profile's curves budgets are chosen by, and which their recovery is reported in.

The oracle's curves say what the best pieces would recover, the selected ones what the executor's
own selector captures of the same budgets: the ones to make promises in. Both are means over the
prompts they were measured on; a prompt that was held out may get less, and budgets chosen some
standard deviations below the mean leave room for that.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from profiles.cost.work import Workload
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from solver.budgets.curves import MeasuredCurves, RecoveryCurves
from solver.budgets.errors import BudgetError
from solver.budgets.options import BudgetOptions, Curve


@dataclass(frozen=True, eq=False)
class Basis:
    """Curves of one profile, their `recovery` that of `curve`.

    expected: means over prompts, in which recovery is reported whatever the margin, so that plans
    of different margins compare. cautious: less the margin, by which budgets are chosen.
    """

    curve: Curve
    expected: MeasuredCurves
    cautious: MeasuredCurves

    @classmethod
    def of(cls, profile: ModelProfile, options: BudgetOptions) -> Self | None:
        """The profile's curves as `options` asks for them; None for a profile of another form.

        Raises BudgetError where it asks for a curve or a spread that was not measured.
        """
        form, name = profile.heads, profile.name
        if not isinstance(form, CurvesForm):
            return None
        if options.curve == "selected" and form.selected_recovery is None:
            raise BudgetError(
                f"budget.curve: profile {name!r} has no selected_recovery; use 'oracle', "
                "or a profile measured with the executor's selector"
            )
        oracle = form.selected_recovery is None or options.curve == "oracle"
        curve: Curve = "oracle" if oracle else "selected"
        spread = form.spread if oracle else form.selected_spread
        expected = MeasuredCurves.of(form, curve, profile.architecture.windows)
        if not options.margin:
            return cls(curve, expected, expected)
        if spread is None:
            field = "spread" if curve == "oracle" else "selected_spread"
            raise BudgetError(
                f"budget.margin: {options.margin:g} standard deviations, but profile "
                f"{name!r} has no {field}; use margin 0, or a profile measured on several "
                "prompts"
            )
        less = np.maximum(expected.recovery - options.margin * np.array(spread), 0.0)
        return cls(curve, expected, replace(expected, recovery=less))

    def at(self, workload: Workload) -> tuple[RecoveryCurves, RecoveryCurves]:
        """Expected and cautious curves at the workload's context: one where there is no margin."""
        cautious = self.cautious.at(workload)
        if self.expected is self.cautious:
            return cautious, cautious
        return self.expected.at(workload), cautious
