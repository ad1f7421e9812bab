"""From profile and policy to tokens: every policy, form, warning and error."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from profiles.cost.work import Workload, budget_pieces
from profiles.model import ModelProfile
from profiles.sizes import causal_pieces
from solver.budgets.errors import BudgetError
from solver.budgets.options import FLOORED, Policy
from tests.solver.budgets.builders import SIZED, curved, given_to, profile_of

POLICIES: tuple[Policy, ...] = get_args(Policy)
CURVED: tuple[Policy, ...] = ("recovery", "max_min", "max_min_shifting", "least_error", "elastic")
FORMS: dict[str, dict[str, Any]] = {
    "budgets": {"form": "budgets", "tokens": [[100, 8000], [129, 64]]},
    "rules": {"form": "rules", "alpha_tokens": [[0, 64], [-9, 0]], "beta": [[0.5, 0], [0.25, 1]]},
    "samples": {
        "form": "samples",
        "context_tokens": [4096, 8192],
        "task": ["a", "b"],
        "kept_tokens": [[[0, 64], [4096, 1]], [[0, 128], [8192, 1]]],
    },
}


@pytest.mark.parametrize(
    ("form", "tokens"),
    [
        ("budgets", [[128, 8000], [192, 64]]),
        ("rules", [[4096, 64], [2048, 8192]]),
        ("samples", [[64, 128], [8192, 64]]),
    ],
)
def test_the_profiles_own_budgets_in_whole_blocks(form: str, tokens: list[list[int]]) -> None:
    budgets = given_to(profile_of(FORMS[form], 2, 2))
    assert budgets.tokens.tolist() == tokens
    assert budgets.tokens.dtype == np.int64
    assert budgets.recovery is None
    assert len(budgets.warnings) == (form != "samples")


@pytest.mark.parametrize("form", FORMS)
def test_dense_is_the_whole_context_for_every_head(form: str) -> None:
    budgets = given_to(profile_of(FORMS[form], 2, 2), 8000, policy="dense")
    assert budgets.tokens.tolist() == [[8000, 8000]] * 2
    assert budgets.warnings == ()


def test_the_profiles_curves_give_the_budgets_for_a_recovery() -> None:
    profile = curved()
    budgets = given_to(profile, recovery=0.8)
    assert budgets.recovery is not None
    assert (budgets.recovery >= 0.8).all()
    same = given_to(profile, policy="recovery", recovery=0.8)
    assert (same.tokens == budgets.tokens).all()


@pytest.mark.parametrize("form", FORMS)
def test_uniform_needs_no_curves(form: str) -> None:
    budgets = given_to(profile_of(FORMS[form], 2, 2), policy="uniform", tokens=1000)
    assert budgets.tokens.tolist() == [[1024, 1024], [1024, 1024]]
    assert budgets.recovery is None


def test_uniform_reports_recovery_where_there_are_curves() -> None:
    budgets = given_to(curved(), policy="uniform", tokens=1000)
    assert budgets.recovery is not None
    assert budgets.recovery.shape == (2, 8)
    assert ((budgets.recovery > 0) & (budgets.recovery < 1)).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("policy", CURVED)
def test_policies_that_need_curves_say_so(form: str, policy: Policy) -> None:
    with pytest.raises(BudgetError) as error:
        given_to(profile_of(FORMS[form], 2, 2), policy=policy, tokens=1000)
    for word in (f"'{policy}'", "'tested'", f"'{form}'", "'uniform'", "'profile'"):
        assert word in str(error.value)


@pytest.mark.parametrize("policy", SIZED)
def test_policies_that_need_tokens_say_so(policy: Policy) -> None:
    with pytest.raises((BudgetError, ValidationError), match=rf"policy '{policy}' needs .*tokens"):
        given_to(curved(), policy=policy)


@settings(deadline=None)
@given(
    st.sampled_from(POLICIES),
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.sampled_from(["layer", "model"]),
    st.sampled_from(["tiles", "tokens"]),
    st.sampled_from(["prefill", "decode"]),
)
def test_whole_blocks_within_the_context_and_the_total(
    policy: Policy, context: int, tokens: int, scope: str, total: str, phase: str
) -> None:
    profile, workload = curved(heads=4), Workload(context)
    tokens = min(tokens, context)
    rules = {"policy": policy, "scope": scope, "total": total}
    budgets = given_to(profile, context, phase, tokens, seconds=0.1, **rules)
    assert ((budgets.tokens % 64 == 0) | (budgets.tokens == context)).all()
    assert (budgets.tokens >= 1).all()
    assert (budgets.tokens <= context).all()
    if policy not in FLOORED:
        return
    n, blocks = workload.context_blocks, budget_pieces(budgets.tokens.astype(np.float64), workload)
    uniform = budget_pieces(np.full(blocks.shape, float(tokens)), workload)
    in_tiles = total == "tiles" and phase == "prefill"
    spent = causal_pieces(blocks, n) if in_tiles else blocks
    allowed = causal_pieces(uniform, n) if in_tiles else uniform
    axis = 1 if scope == "layer" else None
    assert (spent.sum(axis=axis) <= allowed.sum(axis=axis)).all()
    assert (budgets.tokens >= min(128, -(-tokens // 64) * 64, context)).all()
    if policy == "least_error":
        return
    assert budgets.recovery is not None
    before = given_to(profile, context, phase, policy="uniform", tokens=tokens).recovery
    assert before is not None
    assert (budgets.recovery.min(axis=axis) >= before.min(axis=axis)).all()


def test_one_pool_for_the_model_serves_its_least_head_better() -> None:
    per_layer = given_to(curved(layers=6), policy="max_min", tokens=1024)
    pooled = given_to(curved(layers=6), policy="max_min", tokens=1024, scope="model")
    assert per_layer.recovery is not None
    assert pooled.recovery is not None
    assert pooled.recovery.min() > per_layer.recovery.min()


def test_a_total_in_tiles_buys_more_tokens_than_one_in_tokens() -> None:
    """A long budget's last blocks are cheap: few query rows lie behind them."""
    tiles = given_to(curved(), policy="max_min", tokens=2048, total="tiles")
    tokens = given_to(curved(), policy="max_min", tokens=2048, total="tokens")
    assert tiles.tokens.sum() > tokens.tokens.sum()
    assert tokens.tokens.sum(axis=1).tolist() == [8 * 2048, 8 * 2048]
    decode = given_to(curved(), phase="decode", policy="max_min", tokens=2048, total="tiles")
    assert (decode.tokens == tokens.tokens).all()


@pytest.mark.parametrize("policy", FLOORED)
def test_below_the_floor_everybody_gets_the_same_and_a_warning(policy: Policy) -> None:
    budgets = given_to(curved(), policy=policy, tokens=50)
    assert (budgets.tokens == 64).all()
    assert "floor of 128" in budgets.warnings[0]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("context", [1, 65, 100])
def test_contexts_below_the_floor(policy: Policy, context: int) -> None:
    budgets = given_to(curved(), context, policy=policy, tokens=context, recovery=1.0)
    assert (budgets.tokens == context).all()
    assert budgets.recovery is not None
    assert (budgets.recovery == 1).all()
    assert all("floor" not in warning for warning in budgets.warnings)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_million_tokens(policy: Policy) -> None:
    """Shares of the context are what they are at 8,192, but for the size of a block there."""
    floor = {"floor_tokens": 2**14} if policy in FLOORED else {}
    long = given_to(curved(), 2**20, policy=policy, tokens=2**17, seconds=0.5, **floor)
    short = given_to(curved(), 2**13, policy=policy, tokens=2**10, seconds=0.5)
    assert long.tokens.mean() / 2**20 == pytest.approx(short.tokens.mean() / 2**13, abs=1 / 128)
    assert "same shares of the context as at 8192" in long.warnings[0]


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_max_min_takes_no_table_of_a_long_context(scope: str) -> None:
    """1,024 heads x 262,144 blocks would be 2 GiB."""
    budgets = given_to(
        curved(layers=32, heads=32), 2**24, policy="max_min", tokens=2**20, scope=scope
    )
    uniform = given_to(curved(layers=32, heads=32), 2**24, policy="uniform", tokens=2**20)
    assert budgets.recovery is not None
    assert uniform.recovery is not None
    assert budgets.recovery.min() > uniform.recovery.min()


def test_clipping_and_extrapolation_are_reported() -> None:
    clipped = given_to(profile_of(FORMS["budgets"], 2, 2), 1000)
    assert clipped.tokens.max() == 1000
    assert "1 of 4 heads" in clipped.warnings[1]
    beyond = given_to(profile_of(FORMS["samples"], 2, 2), 16384)
    assert "4096 to 8192" in beyond.warnings[0]
    raised = given_to(profile_of(FORMS["rules"], 2, 2), 36)
    assert "1 of 4 heads" in raised.warnings[1]


def test_a_mean_that_is_whole_but_for_noise_buys_no_further_block() -> None:
    samples = {
        "form": "samples",
        "context_tokens": [640, 960, 1120],
        "task": ["a"] * 3,
        "kept_tokens": [[[64]], [[96]], [[112]]],
    }
    assert np.mean([64 / 640, 96 / 960, 112 / 1120]) * 640 > 64
    budgets = given_to(profile_of(samples, 1, 1), 640)
    assert budgets.tokens.tolist() == [[64]]


def windowed(profile: ModelProfile, *windows: int | None) -> ModelProfile:
    architecture = profile.architecture.model_copy(update={"windows": windows})
    return profile.model_copy(update={"architecture": architecture})


@pytest.mark.parametrize("form", FORMS)
def test_no_head_gets_more_than_its_layers_window(form: str) -> None:
    """Of 100 tokens, rounded up to pieces; the layer without one is as before."""
    plain, hybrid = (
        profile_of(FORMS[form], 2, 2),
        windowed(profile_of(FORMS[form], 2, 2), None, 100),
    )
    without, within = given_to(plain).tokens, given_to(hybrid).tokens
    assert (within[0] == without[0]).all()
    assert (within[1] == np.minimum(without[1], 128)).all()
    assert given_to(hybrid, policy="uniform", tokens=1000).tokens.tolist() == [
        [1024] * 2,
        [128] * 2,
    ]


@pytest.mark.parametrize("policy", CURVED)
def test_curves_give_a_window_and_no_more(policy: Policy) -> None:
    profile = curved()
    windows = (None,) * (profile.architecture.layers - 1) + (100,)
    options = {"policy": policy} | ({"tokens": 1024} if policy in SIZED else {})
    budgets = given_to(windowed(profile, *windows), scope="model", **options)
    assert (budgets.tokens[-1] <= 128).all()
    assert budgets.recovery is not None
    assert (budgets.recovery[-1][budgets.tokens[-1] == 128] == 1).all()
