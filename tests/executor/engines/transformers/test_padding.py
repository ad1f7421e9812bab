"""Batches: every sequence as if it were alone, whatever padding stands around it."""

import pytest
import torch

from executor.engines.transformers.attach import attached
from executor.errors import AttentionError
from executor.inference.budget_policy import BudgetPolicy
from tests.executor.inference.models import HEADS, LAYERS, prompt, small

LENGTHS = (50, 17, 33)
POLICY = BudgetPolicy([[16, 48, 32, 1000], [64, 16, 16, 20]], block_tokens=16)
COVERING = BudgetPolicy([[10_000] * HEADS] * LAYERS, block_tokens=16)


def padded(side, lengths=LENGTHS):
    most = max(lengths)
    rows, real = (torch.zeros(len(lengths), most, dtype=torch.int64) for _ in range(2))
    for number, tokens in enumerate(lengths):
        at = slice(most - tokens, most) if side == "left" else slice(0, tokens)
        rows[number, at], real[number, at] = prompt(tokens, number)[0], 1
    return rows, real


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_a_padded_sequence_is_as_if_alone(family, side):
    model, (ids, real) = small(family), padded(side)
    positions = (real.cumsum(1) - 1).clamp(min=0)
    with attached(model, POLICY) as trace:
        together = model(ids, attention_mask=real, position_ids=positions).logits
        tiles = trace.tiles
        for number, tokens in enumerate(LENGTHS):
            alone = model(prompt(tokens, number)).logits[0]
            assert torch.allclose(together[number, real[number].bool()], alone, atol=1e-4)
    assert trace.tiles == 2 * tiles


@pytest.mark.parametrize("policy", [POLICY, COVERING])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_a_padded_batch_generates_what_each_does_alone(family, policy):
    model, (ids, real) = small(family), padded("left")
    options = {"max_new_tokens": 6, "do_sample": False}
    eager = model.generate(ids, attention_mask=real, **options)
    with attached(model, policy):
        together = model.generate(ids, attention_mask=real, **options)
        for number, tokens in enumerate(LENGTHS):
            alone = model.generate(prompt(tokens, number), **options)
            assert torch.equal(together[number, -6:], alone[0, -6:])
    assert policy is POLICY or torch.equal(together, eager)


def test_equally_long_sequences_need_no_mask():
    model, ids = small(), prompt(40, sequences=3)
    with attached(model, POLICY):
        together = model(ids).logits
        for number in range(3):
            assert torch.allclose(together[number], model(ids[number : number + 1]).logits[0])


def test_a_sequence_of_padding_alone_is_nothing():
    model, (ids, real) = small(), padded("left")
    real[1] = 0
    with attached(model, POLICY) as trace:
        assert model(ids, attention_mask=real).logits.isfinite().all()
    assert trace.calls == 2 * LAYERS


def test_padding_in_the_middle_is_refused():
    model, (ids, real) = small(), padded("left")
    real[0, 20] = 0
    with (
        attached(model, POLICY),
        pytest.raises(AttentionError, match=r"stand together; pad on the"),
    ):
        model(ids, attention_mask=real)
    ids, real = padded("right")
    with attached(model, POLICY), pytest.raises(AttentionError, match="pad on the left"):
        model.generate(ids, attention_mask=real, max_new_tokens=2)


def test_a_mask_must_say_what_the_cached_tokens_are():
    model, ids = small(), prompt(40)
    with attached(model, POLICY):
        cache = model(ids[:, :30], use_cache=True).past_key_values
        with pytest.raises(
            AttentionError, match=r"attention_mask: shape \[1, 10\] must be \[1 seq"
        ):
            model(ids[:, 30:], past_key_values=cache, attention_mask=torch.ones(1, 10))
