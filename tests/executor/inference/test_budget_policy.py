"""What a policy is made of: budgets of every head, or a plan."""

from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch

from executor.attention.select import pattern
from executor.attention.shares import HeadShare
from executor.engines.transformers.attach import attached
from executor.errors import AttentionError, ShardError
from executor.inference.budget_policy import BudgetPolicy
from executor.inference.dense_policy import DensePolicy
from executor.inference.policy import LayerCall
from executor.kernels import patterns
from executor.kernels.patterns import lengths
from profiles.errors import UnknownNameError
from profiles.measuring.choices import Choices
from profiles.selection import SinkLocal, Strided
from profiles.sizes import causal_pieces

from ...solver.profiles import plan_of, stated_budgets
from ..plans import tiny_plan
from .models import HEADS, LAYERS, prompt, small

TOKENS = [[16, 32, 48, 64]] * LAYERS


def call(layer=0, heads=HEADS, tokens=40, **changes):
    fields = {
        "layer": layer,
        "q": torch.randn(heads, tokens, 16),
        "keys": torch.randn(2, tokens, 16),
        "values": torch.randn(2, tokens, 16),
        "scaling": 0.25,
    }
    return LayerCall(**{**fields, **changes})


def test_pieces_are_chosen_as_heads_are_measured_unless_somebody_says() -> None:
    measured = Choices("model", Path("data"), (1024,)).selection
    shape = stated_budgets(np.full((1, 2), 64.0), 1).architecture
    assert signature(BudgetPolicy).parameters["selection"].default == measured
    assert HeadShare(0, 0, 64).pattern == pattern(measured, shape, 0, 64)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "there must be a layer"),
        ([[]], "there must be a layer"),
        (64, r"must be \[layers, query_heads\]"),
        ([64, 64], r"must be \[layers, query_heads\]"),
        ([[64, 64], [64]], r"tokens\[1\]: 1 query heads, but 2 in layer 0"),
        ([[64, -64]], r"tokens\[0\]\[1\]: -64 must be a whole number, at least 1"),
        ([[64, 0]], r"tokens\[0\]\[1\]: 0 must be"),
        ([[64, float("nan")]], r"tokens\[0\]\[1\]: nan must be"),
        ([[64, float("inf")]], r"tokens\[0\]\[1\]: inf must be"),
        ([[64, 64.5]], r"tokens\[0\]\[1\]: 64.5 must be"),
        ([[64, True]], r"tokens\[0\]\[1\]: True must be"),
        ([["64", None]], r"tokens\[0\]\[0\]: '64' must be"),
        (np.full((2, 2), np.nan), r"tokens\[0\]\[0\]: nan must be"),
        (np.ones((2, 2, 2), int), r"tokens\[0\]\[0\]: \[1, 1\] must be"),
    ],
)
def test_bad_budgets_are_named(tokens, message):
    with pytest.raises(AttentionError, match=message):
        BudgetPolicy(tokens)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "cuda"}, UnknownNameError, "'cuda': known are auto, torch, triton"),
        ({"block_tokens": 0}, AttentionError, "block_tokens: 0 must be a whole number"),
        ({"block_tokens": 16.0}, AttentionError, r"block_tokens: 16\.0 must be"),
        ({"watched_rows": -1}, AttentionError, "watched_rows: -1 must be"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        BudgetPolicy(TOKENS, **options)


def test_calls_of_another_model_are_refused():
    for other in (call(layer=LAYERS), call(heads=8)):
        with pytest.raises(AttentionError, match="tokens: budgets of 2 layers and 4 query heads"):
            BudgetPolicy(TOKENS).attend(other)


def test_strided_blocks_of_another_size_are_refused():
    policy = BudgetPolicy(
        TOKENS, selection=Strided(block_tokens=64, local_blocks=2, vert_stride=2), block_tokens=16
    )
    with pytest.raises(ShardError, match="plan with its own block size"):
        policy.attend(call())


def test_every_kv_head_has_its_own_pattern():
    """Of strided blocks with a dense KV head, whose query heads' budgets cover the context."""
    strided = Strided(block_tokens=16, local_blocks=2, vert_stride=3, dense_kv_heads=1)
    policy = BudgetPolicy([[48, 48, 1000, 1000]], selection=strided, block_tokens=16)
    blocks = int(lengths(patterns.Rule.strided(2, 3), 3, 0, 7, patterns.Grid(1, 7)).sum())
    assert policy.attend(call(tokens=100)).tiles == 2 * blocks + 2 * causal_pieces(7, 7)


def test_heads_wider_than_tritons_tiles_are_refused():
    with pytest.raises(AttentionError, match="head_dim: 512 must be a power of two from 16 to 256"):
        BudgetPolicy(TOKENS, backend="triton").attend(
            call(
                q=torch.zeros(HEADS, 16, 300),
                keys=torch.zeros(2, 16, 300),
                values=torch.zeros(2, 16, 300),
            )
        )


@pytest.mark.parametrize("kind", [np.array, torch.tensor, lambda x: tuple(map(tuple, x))])
def test_budgets_may_be_arrays(kind):
    asked = call()
    found = BudgetPolicy(kind(TOKENS), block_tokens=16).attend(asked)
    assert torch.equal(found.out, BudgetPolicy(TOKENS, block_tokens=16).attend(asked).out)


def test_budgets_may_be_huge():
    asked = call()
    found = BudgetPolicy([[2**62] * HEADS], block_tokens=16).attend(asked)
    assert torch.equal(found.out, DensePolicy(block_tokens=16).attend(asked).out)


def test_a_decoding_sequence_is_prepared_once_a_block():
    policy = BudgetPolicy(TOKENS, block_tokens=16)
    for total in range(33, 65):
        keys = torch.randn(2, total, 16)
        policy.attend(call(tokens=1, keys=keys, values=keys))
    assert policy._blocks._step.cache_info().misses == 2


def test_steps_kept_are_few():
    policy = BudgetPolicy(TOKENS, block_tokens=16)
    for tokens in range(1, 40):
        policy.attend(call(tokens=tokens))
    assert policy._blocks._step.cache_info().currsize <= 2 * LAYERS


def test_heads_of_nearly_all_tiles_are_dense_where_that_is_no_slower():
    """7 of 10 blocks are 49 of 55 tiles; on a CPU, unless their lists are wanted as chosen."""
    asked, nearly = call(tokens=160), [[112] * HEADS] * LAYERS
    found = BudgetPolicy(nearly, block_tokens=16).attend(asked)
    assert found.tiles == found.dense_tiles
    assert torch.equal(found.out, DensePolicy(block_tokens=16).attend(asked).out)
    for options in ({"as_chosen": True}, {"watched_rows": 4}, {"backend": "triton"}):
        lists = BudgetPolicy(nearly, block_tokens=16, **options).attend(asked)
        assert lists.tiles == HEADS * causal_pieces(7, 10)


def test_a_solved_plan_is_carried_out():
    """The budgets of every layer and head, at the plan's block size, whatever the placement."""
    profile = stated_budgets(np.array([[64.0, 128, 192, 512], [320, 64, 64, 128]]), 2)
    plan = plan_of(profile, gpus=2, context_tokens=512)
    model = small(hidden_size=512, head_dim=64)
    with attached(model, BudgetPolicy.of_plan(plan)) as trace:
        model(prompt(512))
    assert trace.tiles == sum(causal_pieces(b // 64, 8) for layer in plan.budgets for b in layer)
    assert trace.dense_tiles == LAYERS * HEADS * causal_pieces(8, 8)
    assert {b for layer in plan.budgets for b in layer} == {64, 128, 192, 320, 512}


def test_a_plans_selection_is_its_policys():
    plan = tiny_plan().model_copy(update={"selection": SinkLocal(sink_tokens=64)})
    asked = call(tokens=300)
    found = BudgetPolicy.of_plan(plan).attend(asked)
    wanted = BudgetPolicy(plan.budgets, selection=SinkLocal(sink_tokens=64)).attend(asked)
    assert torch.equal(found.out, wanted.out)
    assert not torch.allclose(found.out, BudgetPolicy(plan.budgets).attend(asked).out, atol=1e-3)


def test_a_head_that_covers_the_context_is_dense_and_the_others_are_not():
    model, ids = small(), prompt(100)
    with attached(model, BudgetPolicy([[16, 16, 16, 112]] * LAYERS, block_tokens=16)) as trace:
        model(ids)
    heads_sparse, head_dense = causal_pieces(1, 7), causal_pieces(7, 7)
    assert trace.tiles == LAYERS * (3 * heads_sparse + head_dense)
