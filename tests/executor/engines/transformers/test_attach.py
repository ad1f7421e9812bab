"""Policies come and go, each with its own model; what cannot be computed is refused by name."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Llama4ForCausalLM,
    Llama4TextConfig,
)

from executor.engines.transformers.attach import attach, attached, detach
from executor.engines.transformers.interface import attachments
from executor.errors import AttentionError
from executor.inference.budget_policy import BudgetPolicy
from tests.executor.inference.models import HEADS, LAYERS, prompt, small
from tests.executor.inference.models import config as small_config

ONE = BudgetPolicy([[16] * HEADS] * LAYERS, block_tokens=16)
OTHER = BudgetPolicy([[64] * HEADS] * LAYERS, block_tokens=16)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 89,
    "pad_token_id": 0,
}


def logits(model, policy, ids):
    with attached(model, policy):
        return model(ids).logits


def test_two_models_attend_by_their_own_policies():
    first, second, ids = small(seed=0), small(seed=1), prompt(100)
    alone = [logits(first, ONE, ids), logits(second, OTHER, ids)]
    with attached(first, ONE) as trace, attached(second, OTHER) as other:
        together = [first(ids).logits, second(ids).logits]
        assert trace.share < other.share
    assert all(torch.equal(x, y) for x, y in zip(alone, together, strict=True))


def test_two_models_share_a_policy_in_two_threads():
    models, ids = [small(seed=seed) for seed in range(2)], prompt(60)

    def generated(model):
        with torch.inference_mode(), attached(model, ONE):
            return model.generate(ids, max_new_tokens=20, do_sample=False)

    alone = [generated(model) for model in models]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(generated, models))
    assert all(torch.equal(x, y) for x, y in zip(alone, together, strict=True))


def test_detaching_gives_the_model_its_attention_back():
    model, ids = small(), prompt(100)
    eager = model(ids).logits
    attach(model, ONE)
    assert model.config._attn_implementation == "hplb"
    assert not torch.allclose(model(ids).logits, eager, atol=1e-2)
    detach(model)
    assert model.config._attn_implementation == "eager"
    assert torch.equal(model(ids).logits, eager)
    model.set_attn_implementation("sdpa")
    with pytest.raises(ZeroDivisionError), attached(model, ONE):
        1 / 0  # noqa: B018
    assert model.config._attn_implementation == "sdpa"
    assert not any(module in attachments for module in model.modules())


def test_an_attachment_keeps_no_model_alive():
    model = small()
    attach(model, ONE)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_model_has_one_policy_and_its_config_to_itself():
    shared = small_config()
    model, other = (type(small())(shared).eval() for _ in range(2))
    with pytest.raises(AttentionError, match="no policy is attached"):
        detach(model)
    with attached(model, ONE):
        for taken in (model, model.model, other):
            with pytest.raises(AttentionError, match="shares its config: detach that first"):
                attach(taken, OTHER)
        assert attachments[model].policy is ONE


def test_a_policy_is_for_models_of_its_shape():
    for tokens in ([[16] * HEADS] * 3, [[16] * 8] * LAYERS):
        with pytest.raises(AttentionError, match="LlamaForCausalLM has 2 and 4"):
            attach(small(), BudgetPolicy(tokens))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES)), r"logit softcapping .*softcap"),
        (
            lambda: Llama4ForCausalLM(
                Llama4TextConfig(
                    **SIZES, intermediate_size_mlp=32, num_local_experts=2, attention_chunk_size=16
                )
            ),
            "packed sequences, chunked and bidirectional attention need",
        ),
        (lambda: small("gemma3", use_bidirectional_attention=True), "causal"),
    ],
    ids=["gemma2", "llama4", "embedding-gemma"],
)
def test_features_nobody_computes_are_named(model, message):
    model = model().eval().requires_grad_(False)
    with attached(model, ONE), pytest.raises(AttentionError, match=message):
        model(prompt(40))


def test_gemma_2_without_its_softcapping_is_computed():
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(
        Gemma2Config(**SIZES, attn_logit_softcapping=None, attn_implementation="eager")
    )
    model, ids = model.eval().requires_grad_(False), prompt(40)
    eager = model(ids).logits
    found = logits(model, BudgetPolicy([[64] * HEADS] * LAYERS, block_tokens=16), ids)
    assert torch.allclose(found, eager, atol=1e-4)


def test_attention_weights_are_never_made():
    model = small()
    with attached(model, ONE), pytest.raises(AttentionError, match="weights as an output"):
        model(prompt(20), output_attentions=True)


def test_training_is_refused():
    model, ids = small(attention_dropout=0.1), prompt(20)
    with attached(model, ONE):
        with pytest.raises(AttentionError, match=r"dropout 0.1; call model.eval\(\)"):
            model.train()(ids)
        model.eval().requires_grad_(True)
        with pytest.raises(AttentionError, match=r"no gradients: run under torch.no_grad\(\)"):
            model(ids)
        with torch.no_grad():
            model(ids)


def test_packed_sequences_and_ready_made_masks_are_refused():
    model, ids = small(), prompt(20)
    packed = torch.cat([torch.arange(12), torch.arange(8)])[None]
    causal = torch.ones(20, 20, dtype=torch.bool).tril()[None, None]
    with attached(model, ONE):
        with pytest.raises(AttentionError, match="packed sequences"):
            model(ids, position_ids=packed, use_cache=False)
        with pytest.raises(
            AttentionError, match=r"torch.bool of shape \[1, 1, 20, 20\]; hplb takes"
        ):
            model(ids, attention_mask=causal)


def test_a_model_of_text_and_images_is_refused():
    text = {**SIZES, "sliding_window": 64}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 28}
    vision |= {"num_attention_heads": 2, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = Gemma3ForConditionalGeneration(config)
    with pytest.raises(AttentionError, match="attach to its language model"):
        attach(model, ONE)
    language = model.model.language_model.eval().requires_grad_(False)
    with attached(language, ONE) as trace:
        language(prompt(40))
    assert trace.share < 1
