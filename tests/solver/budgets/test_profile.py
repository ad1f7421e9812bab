"""What each form of profile says a head needs."""

import numpy as np
import pytest

from profiles.cost.work import Workload
from profiles.heads import BudgetsForm, RulesForm, SamplesForm
from solver.budgets.curves import MeasuredCurves
from solver.budgets.profile import profile_tokens
from tests.solver.budgets.builders import random_curves


def test_stated_budgets_hold_as_they_are() -> None:
    tokens, warnings = profile_tokens(BudgetsForm(tokens=[[100, 250.5]]), Workload(1000), 0.9)
    assert tokens.tolist() == [[100, 250.5]]
    assert [" kept as they are " in warning for warning in warnings] == [True]


def test_stated_budgets_above_the_context_are_clipped_and_counted() -> None:
    form = BudgetsForm(tokens=[[100, 2000, 1001]])
    tokens, warnings = profile_tokens(form, Workload(1000), 0.9)
    assert tokens.tolist() == [[100, 1000, 1000]]
    assert len(warnings) == 2
    assert "2 of 3 heads" in warnings[1]


def test_rules_extend_to_any_context_without_a_warning() -> None:
    form = RulesForm(alpha_tokens=[[-1024, 0, 3072]], beta=[[0.5, 0.25, 1.0]])
    tokens, warnings = profile_tokens(form, Workload(2**20), 0.9)
    assert tokens.tolist() == [[2**19 - 1024, 2**18, 2**20]]
    assert [" extended " in warning for warning in warnings] == [True]


def test_rules_that_give_nothing_are_raised_and_counted() -> None:
    form = RulesForm(alpha_tokens=[[-1024, 0, 64]], beta=[[0.5, 0.0, 0.0]])
    tokens, warnings = profile_tokens(form, Workload(1000), 0.9)
    assert tokens.tolist() == [[1, 1, 64]]
    assert "2 of 3 heads" in warnings[1]


def test_samples_are_averaged_as_shares_of_their_own_contexts() -> None:
    form = SamplesForm(
        context_tokens=[1000, 4000], task=["a", "b"], kept_tokens=[[[100, 0]], [[1200, 0]]]
    )
    tokens, warnings = profile_tokens(form, Workload(2000), 0.9)
    assert tokens == pytest.approx(np.array([[400.0, 0.0]]))
    assert warnings == []


@pytest.mark.parametrize("context", [999, 4001])
def test_samples_warn_outside_the_requests_contexts(context: int) -> None:
    form = SamplesForm(context_tokens=[4000, 1000], task=["a", "b"], kept_tokens=[[[400]], [[100]]])
    tokens, warnings = profile_tokens(form, Workload(context), 0.9)
    assert tokens == pytest.approx(np.array([[0.1 * context]]))
    assert "1000 to 4000" in warnings[0]


def test_curves_give_the_least_tokens_for_the_recovery() -> None:
    workload = Workload(8192)
    curves = MeasuredCurves.of(random_curves(3)).at(workload)
    few, _ = profile_tokens(curves, workload, 0.5)
    many, warnings = profile_tokens(curves, workload, 0.95)
    assert (few < many).any()
    assert (curves.at((many // 64).astype(np.int64)) >= 0.95).all()
    assert warnings == []
