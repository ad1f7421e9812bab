"""Small models: every policy on curves of several short contexts, in blocks of 16 and 32."""

from typing import Any

import numpy as np
import pytest

from profiles.cost.work import Workload, budget_pieces
from profiles.model import ModelProfile
from profiles.sizes import causal_pieces
from solver.budgets.allocate import Budgets
from solver.budgets.errors import BudgetError
from solver.budgets.options import FLOORED, SIZED, BudgetOptions, Policy
from tests.solver.budgets.builders import allotted, profile_of
from tests.solver.problems import soon
from tests.solver.profiles import faults, plan_of

CONTEXTS = [256, 512, 1024, 2048, 4096]


def small_model(layers: int = 4, heads: int = 8) -> ModelProfile:
    """Curves of five contexts, ragged as measured ones are; selected ones may fall."""
    rng = np.random.default_rng(5)
    power = rng.uniform(0.02, 0.9, (layers, heads, 1, 1))
    budgets = [[int(n * part / 8) for part in range(1, 9)] for n in CONTEXTS]
    shares = np.array(budgets) / np.array(CONTEXTS)[:, None]
    noise = rng.normal(0, 0.02, (layers, heads, *shares.shape))
    recovery = np.clip(shares**power + noise, 0, 1)
    selected = np.clip(recovery - np.abs(noise), 0, 1)
    heads_form = {
        "form": "recovery_curves",
        "context_tokens": CONTEXTS,
        "budget_tokens": budgets,
        "recovery": recovery.tolist(),
        "selected_recovery": selected.tolist(),
        "spread": np.abs(noise).tolist(),
        "selected_spread": np.abs(noise).tolist(),
        "output_error": (rng.lognormal(size=(layers, heads, 1, 1)) * (1 - selected)).tolist(),
    }
    return profile_of(heads_form, layers, heads)


MODEL = small_model()


def asked(
    policy: Policy, tokens: int, context: int, block: int, piece: int = 0, **more: Any
) -> Budgets:
    if policy in SIZED or policy == "elastic":
        more["tokens"] = tokens
    workload = Workload(context, block_tokens=block, piece_tokens=piece)
    seconds = 0.1 if policy == "elastic" else 30
    return allotted(MODEL, BudgetOptions(policy=policy, **more), workload, soon(seconds))


@pytest.mark.parametrize("context", [256, 300, *CONTEXTS[1:]])
@pytest.mark.parametrize(("block", "piece"), [(16, 16), (32, 32), (32, 16), (64, 16)])
@pytest.mark.parametrize("policy", ["profile", "recovery", "elastic", *SIZED])
def test_whole_small_pieces_within_the_total(
    policy: Policy, block: int, piece: int, context: int
) -> None:
    more: dict[str, object] = {"floor_tokens": 32} if policy in FLOORED else {}
    budgets = asked(policy, context // 4, context, block, piece, scope="layer", **more)
    tokens = budgets.tokens
    assert ((tokens % piece == 0) | (tokens == context)).all()
    assert (tokens <= context).all()
    assert (tokens >= block).all()
    assert budgets.recovery is not None
    if policy not in SIZED:
        return
    assert budgets.warnings == ()
    workload = Workload(context, block_tokens=block, piece_tokens=piece)
    rows = workload.context_blocks, workload.block_pieces
    spent = causal_pieces(budget_pieces(tokens.astype(np.float64), workload), *rows).sum(axis=1)
    each = budget_pieces(np.array(float(context // 4)), workload)
    assert (spent <= 8 * causal_pieces(each, *rows)).all()
    if policy in FLOORED:
        assert (tokens >= 32).all()
        # A quarter of the shortest context is a block of 64 itself: nothing to share out.
        assert (tokens != tokens[0, 0]).any() == (context // 4 > block)


@pytest.mark.parametrize("policy", FLOORED)
def test_a_lower_floor_frees_what_sparse_heads_do_not_need(policy: Policy) -> None:
    usual = asked(policy, 192, 1024, 16)
    lower = asked(policy, 192, 1024, 16, floor_tokens=16)
    assert usual.tokens.min() == 128
    assert lower.tokens.min() < 128
    assert usual.recovery is not None
    assert lower.recovery is not None
    if policy == "max_min":
        assert (lower.recovery.min(axis=1) >= usual.recovery.min(axis=1)).all()
    [warning] = asked(policy, 100, 1024, 16).warnings
    assert "floor of 128" in warning
    assert asked(policy, 100, 1024, 16, floor_tokens=96).warnings == ()


def test_a_floor_is_rounded_up_to_blocks() -> None:
    assert asked("max_min", 512, 1024, 32, floor_tokens=33).tokens.min() >= 64


@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_idle_time_is_filled_in_small_blocks(block: int, margin: float) -> None:
    budget = {"policy": "max_min", "tokens": 256, "fill": True, "floor_tokens": 32}
    plan = plan_of(
        MODEL,
        context_tokens=1024,
        gpus=3,
        block_tokens=block,
        budget={**budget, "margin": margin},
    )
    assert faults(plan) == []
    assert plan.filled is not None
    assert plan.filled.added_tokens > 0
    assert plan.filled.recovery_mean[1] > plan.filled.recovery_mean[0]
    assert plan.recovery is not None
    assert plan.recovery.curve == "selected"
    assert min(plan.recovery.least) == plan.filled.recovery_min[1]
    assert np.mean(plan.recovery.mean) == pytest.approx(plan.filled.recovery_mean[1])
    assert all(b % block == 0 for layer in plan.budgets for b in layer)


def test_too_little_density_for_a_block_is_refused() -> None:
    options = BudgetOptions(policy="elastic", density=0.01)
    with pytest.raises(BudgetError, match="density"):
        allotted(MODEL, options, Workload(256, block_tokens=32), soon(0.2))
