"""The policy `elastic` from a request: its contexts, its density, and what it says of itself."""

import numpy as np
import pytest

from profiles.cost.work import Workload, budget_pieces
from profiles.sizes import causal_pieces
from solver.budgets.allocate import Budgets
from solver.budgets.elastic import ElasticRules
from solver.budgets.errors import BudgetError
from solver.budgets.options import BudgetOptions
from tests.solver.budgets.builders import allotted, curved, given_to
from tests.solver.problems import soon


def elastic_rules(budgets: Budgets) -> ElasticRules:
    assert budgets.rules is not None
    return budgets.rules


def attended(rules: ElasticRules, context: int, phase: str = "prefill") -> np.ndarray:
    """Mean attended share of every layer `[layers]`, at one context."""
    workload = Workload(context)
    blocks = budget_pieces(rules.alpha + rules.beta * context, workload)
    n = workload.context_blocks
    drawn = causal_pieces(blocks, n) / (n * (n + 1) // 2) if phase == "prefill" else blocks / n
    return np.asarray(drawn.mean(axis=1))


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("context", [8192, 5000])
def test_elastic_keeps_the_density_at_the_context_its_half_and_its_quarter(
    phase: str, context: int
) -> None:
    budgets = given_to(curved(), context, phase, policy="elastic", density=0.3, seconds=0.5)
    rules = elastic_rules(budgets)
    assert rules.contexts == (context, context // 2, context // 4)
    for at in rules.contexts:
        assert (attended(rules, at, phase) <= 0.3 + 1e-9).all()
    given = budget_pieces(rules.alpha + rules.beta * context, Workload(context)) * 64
    assert (budgets.tokens == np.minimum(given, context)).all()
    assert budgets.recovery is not None


def test_elastic_attends_to_no_more_than_the_tokens_say_and_recovers_more() -> None:
    profile = curved(heads=32)
    uniform = given_to(profile, policy="uniform", tokens=1024)
    budgets = given_to(profile, policy="elastic", tokens=1024)
    share = causal_pieces(np.array(16), 128) / causal_pieces(np.array(128), 128)
    assert (attended(elastic_rules(budgets), 8192) <= share + 1e-9).all()
    assert budgets.recovery is not None
    assert uniform.recovery is not None
    assert budgets.recovery.mean() > uniform.recovery.mean()


def test_elastic_over_the_model_loses_less_than_in_every_layer() -> None:
    profile = curved(layers=6, heads=32)
    apart = given_to(profile, policy="elastic", density=0.3)
    together = given_to(profile, policy="elastic", density=0.3, scope="model")
    assert elastic_rules(together).loss < elastic_rules(apart).loss
    assert together.tokens.shape == (6, 32)
    assert attended(elastic_rules(together), 8192).max() > 0.3
    assert elastic_rules(together).density.max() <= 0.3


def test_elastic_holds_the_density_where_it_is_told_to_and_at_the_context() -> None:
    rules = elastic_rules(
        given_to(curved(heads=32), policy="elastic", density=0.3, contexts=[1024, 16384, 1024])
    )
    assert rules.contexts == (16384, 8192, 1024)
    for at in rules.contexts:
        assert (attended(rules, at) <= 0.3 + 1e-9).all()


def test_elastic_plans_for_no_context_too_short_for_the_density_unless_told_to() -> None:
    by_itself = given_to(curved(), 512, policy="elastic", density=0.3)
    assert elastic_rules(by_itself).contexts == (512,)
    with pytest.raises(BudgetError, match=r"density: 0\.3 .* 0\.4 .* 512, 256 tokens"):
        given_to(curved(), 512, policy="elastic", density=0.3, contexts=[256])


def test_elastic_says_so_where_its_choice_is_not_proved() -> None:
    cancelled = soon()
    cancelled.cancelled.set()
    options = BudgetOptions(policy="elastic", density=0.3)
    budgets = allotted(curved(), options, Workload(8192), cancelled)
    assert "proved only to be within 100.0% of the least" in budgets.warnings[-1]
    assert (attended(elastic_rules(budgets), 8192) <= 0.3).all()
