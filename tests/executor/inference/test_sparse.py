"""Budgets below the context: each row sees the blocks its head chose, and nothing else."""

import pytest
import torch

from executor.engines.transformers.attach import attached
from executor.inference.budget_policy import BudgetPolicy
from profiles.selection import POOLED, Sampled, SinkLocal, Strided, VerticalSlash
from profiles.sizes import causal_pieces

from .models import (
    HEADS,
    LAYERS,
    brute_force,
    logits_in_steps,
    prompt,
    recorded,
    small,
    visible,
)

UNEQUAL = [[16, 48, 32, 1000], [64, 16, 16, 20]]
SELECTIONS = [
    POOLED,
    Sampled(),
    VerticalSlash(),
    SinkLocal(sink_tokens=16),
    Strided(block_tokens=16, local_blocks=2, vert_stride=3),
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda s: s.kind)
@pytest.mark.parametrize("sizes", [(100,), (37, 50), (60, 1, 1, 1, 1, 1)])
def test_logits_are_those_of_the_chosen_blocks(selection, sizes, monkeypatch):
    model, ids = small("qwen3"), prompt(sum(sizes))
    policy = BudgetPolicy(UNEQUAL, selection=selection, block_tokens=16)
    with recorded(monkeypatch) as calls, attached(model, policy) as trace:
        found = logits_in_steps(model, ids, sizes)
    exact = brute_force(model, calls)
    assert torch.allclose(found.double(), logits_in_steps(exact, ids, sizes), atol=1e-4)
    assert len(calls) == LAYERS * len(sizes)
    assert 0 < trace.share < 1


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_sinks_take_their_share_of_the_chosen_blocks(backend, monkeypatch):
    full = {"layer_types": ["full_attention"] * LAYERS, "experts_implementation": "eager"}
    model, ids = small("gpt_oss", **full), prompt(70)
    policy = BudgetPolicy(UNEQUAL, block_tokens=16, backend=backend)
    with recorded(monkeypatch) as calls, attached(model, policy):
        found = logits_in_steps(model, ids, (40, 29, 1))
    exact = brute_force(model, calls)
    assert torch.allclose(found.double(), logits_in_steps(exact, ids, (40, 29, 1)), atol=1e-4)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_scaled_logits_choose_and_attend(backend, monkeypatch):
    """Gemma 3 scales its logits by its own number, and its first layer slides."""
    model, ids = small("gemma3", layer_types=["full_attention"] * LAYERS), prompt(70)
    policy = BudgetPolicy(UNEQUAL, block_tokens=16, backend=backend)
    with recorded(monkeypatch) as calls, attached(model, policy):
        found = logits_in_steps(model, ids, (69, 1))
    wanted = logits_in_steps(brute_force(model, calls), ids, (69, 1))
    assert torch.allclose(found.double(), wanted, atol=1e-4)


def test_tiles_are_counted():
    model, ids = small(), prompt(100)
    policy = BudgetPolicy(UNEQUAL, block_tokens=16, as_chosen=True)
    with attached(model, policy) as trace:
        logits_in_steps(model, ids[:, :99], (40, 59))
        budgets = [-(-tokens // 16) for layer in UNEQUAL for tokens in layer]
        # Tokens 32 to 39 are in a query block of both chunks, which begin it anew.
        again = sum(min(b, 3) for b in budgets)
        assert trace.tiles == sum(causal_pieces(min(b, 7), 7) for b in budgets) + again
        assert trace.dense_tiles == LAYERS * HEADS * (28 + 3)
    with attached(model, policy) as trace:
        logits_in_steps(model, ids[:, :50], (49, 1))
        decoded = trace.tiles - sum(causal_pieces(min(b, 4), 4) for b in budgets)
        assert decoded == 2 * (3 + 4 + 4 + 2)
        assert trace.dense_tiles == LAYERS * HEADS * (10 + 4)


def test_unequal_budgets_are_not_uniform_ones_at_the_same_tiles():
    model, ids = small(), prompt(160)
    logits, tiles = [], []
    for layer in ([16, 48, 16, 48], [32, 32, 32, 32]):
        with attached(model, BudgetPolicy([layer] * LAYERS, block_tokens=16)) as trace:
            logits.append(model(ids[:, :16]).logits[0])
            logits.append(model(ids).logits[0])
        tiles.append(trace.tiles)
    assert torch.allclose(logits[0], logits[2], atol=1e-5)
    assert not torch.allclose(logits[1], logits[3], atol=1e-2)
    assert abs(tiles[0] - tiles[1]) <= LAYERS * HEADS


def test_recovery_is_the_mass_of_the_chosen_keys(monkeypatch):
    """Of all rows, computed from the model's own eager weights in its first layer."""
    model, ids = small(), prompt(48)
    policy = BudgetPolicy(UNEQUAL, block_tokens=16, watched_rows=48)
    with recorded(monkeypatch) as calls, attached(model, policy) as trace:
        model(ids)
    weights = model(ids, output_attentions=True).attentions[0][0]
    mass = (weights * visible(*calls[0], 48, 48)).sum(-1).mean(-1)
    assert torch.allclose(trace.recovery()[0], mass.double(), atol=1e-4)
    assert trace.recovery()[0, 3] == pytest.approx(1)
    assert trace.recovery()[0, 0] < 0.9


def test_a_decoding_group_recovers_together():
    model, ids = small(), prompt(100)
    with attached(model, BudgetPolicy(UNEQUAL, block_tokens=16, watched_rows=1)) as trace:
        cache = model(ids[:, :99], use_cache=True).past_key_values
    with attached(model, BudgetPolicy(UNEQUAL, block_tokens=16, watched_rows=1)) as trace:
        model(ids[:, 99:], past_key_values=cache)
    recovery = trace.recovery()
    assert torch.equal(recovery[:, 0], recovery[:, 1])
    assert recovery[0, 2] == recovery[0, 3] == pytest.approx(1)
    assert (recovery[1] < 1).all()


def test_a_greedy_step_is_the_prompt_without_a_cache_where_lists_agree():
    """At a block's first token, a decode by fixed rule sees what the prompt's last row sees."""
    model, ids = small(), prompt(81)
    policy = BudgetPolicy(
        [[48] * HEADS] * LAYERS, selection=SinkLocal(sink_tokens=16), block_tokens=16
    )
    with attached(model, policy):
        whole = model(ids).logits[0]
        assert torch.allclose(logits_in_steps(model, ids, (80, 1)), whole, atol=1e-4)
        grown = model.generate(ids[:, :60], max_new_tokens=6, do_sample=False)
        alone = ids[:, :60]
        for _ in range(6):
            newest = model(alone).logits[:, -1].argmax(-1)
            alone = torch.cat([alone, newest[:, None]], 1)
    assert torch.equal(grown, alone)
