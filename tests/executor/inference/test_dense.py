"""Budgets that cover the context are the model's own attention."""

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache

from executor.engines.transformers.attach import attached
from executor.inference.budget_policy import BudgetPolicy
from executor.inference.dense_policy import DensePolicy

from .models import FAMILIES, HEADS, LAYERS, logits_in_steps, prompt, small

COVERING = [[10_000] * HEADS] * LAYERS
families = pytest.mark.parametrize("family", sorted(FAMILIES))


def policy(block_tokens=16, **options):
    return BudgetPolicy(COVERING, block_tokens=block_tokens, **options)


@pytest.mark.parametrize("block_tokens", [16, 32, 64, 128])
@families
def test_prefill_of_any_length_is_eager(family, block_tokens):
    model = small(family)
    for tokens in (1, 15, 17, 33, 100):
        ids = prompt(tokens, tokens)
        eager = model(ids).logits
        with attached(model, policy(block_tokens)) as trace:
            assert torch.allclose(model(ids).logits, eager, atol=1e-4)
        assert trace.share == 1
        assert trace.calls == LAYERS


@pytest.mark.parametrize(
    "sizes", [(33, 40, 27), (50, 1, 1, 1), (16, 1, 30, 1), (1, 1, 20), (17, 80)]
)
@families
def test_chunks_and_decodes_with_a_cache_are_eager(family, sizes):
    model, ids = small(family), prompt(sum(sizes))
    eager = model(ids).logits[0]
    with attached(model, policy()) as trace:
        assert torch.allclose(logits_in_steps(model, ids, sizes), eager, atol=1e-4)
    assert trace.share == 1


@families
def test_a_cache_that_slides_is_eager(family):
    model, ids = small(family), prompt(90)
    eager = model(ids).logits[0]
    with attached(model, policy()):
        cache, found = DynamicCache(config=model.config), []
        for part in ids.split([40, 20, 29, 1], 1):
            found.append(model(part, past_key_values=cache).logits[0])
    assert torch.allclose(torch.cat(found), eager, atol=1e-4)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@families
def test_greedy_generation_is_eager(family, cache):
    model, ids = small(family), prompt(29)
    options = {"max_new_tokens": 12, "do_sample": False}
    eager = model.generate(ids, **options)
    with attached(model, policy()):
        assert torch.equal(model.generate(ids, cache_implementation=cache, **options), eager)


def test_a_static_cache_of_any_room_is_eager():
    model, ids = small(), prompt(40)
    eager = model(ids).logits[0]
    with attached(model, policy()):
        cache = StaticCache(model.config, max_cache_len=77)
        found = [model(part, past_key_values=cache).logits[0] for part in ids.split([30, 9, 1], 1)]
    assert torch.allclose(torch.cat(found), eager, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.01)])
def test_half_precision_is_as_near_as_eager(dtype, tolerance):
    model, ids = small(), prompt(60)
    exact = model(ids).logits
    model = model.to(dtype)
    with attached(model, policy()):
        found = logits_in_steps(model, ids, (59, 1))
    assert found.dtype == dtype
    error = (found.float() - exact).norm() / exact.norm()
    assert error < tolerance


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_triton_is_eager(family):
    """Qwen3's heads of 24 are as wide as 32 there."""
    model, ids = small(family), prompt(34)
    eager = model(ids).logits[0]
    with attached(model, policy(backend="triton")):
        assert torch.allclose(logits_in_steps(model, ids, (33, 1)), eager, atol=1e-4)


def test_a_model_is_loaded_dense_by_name(tmp_path):
    small().save_pretrained(tmp_path)
    ids = prompt(50)
    eager = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="hplb")
    with torch.no_grad():
        assert torch.allclose(ours(ids).logits, eager(ids).logits, atol=1e-4)
        with attached(ours, DensePolicy(block_tokens=16)) as trace:
            ours(ids)
    assert trace.share == 1
    assert ours.config._attn_implementation == "hplb"
