"""A growing cache is transformers' dynamic cache in all but cost, and its decodes are exact."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from executor.engines.transformers.attach import attached
from executor.engines.transformers.cache import GrowingCache, GrowingLayer
from executor.inference import room as rooms
from executor.inference.budget_policy import BudgetPolicy
from profiles.selection import POOLED, SinkLocal
from tests.executor.engines.transformers.test_padding import LENGTHS, padded
from tests.executor.inference.models import (
    HEADS,
    LAYERS,
    brute_force,
    prompt,
    recorded,
    small,
)

TOKENS = [[16, 48, 32, 1000], [64, 16, 16, 20]]
POLICY = BudgetPolicy(TOKENS, block_tokens=16)
FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma3"]


def both(model):
    return GrowingCache(model.config), DynamicCache(config=model.config)


def steps(model, ids, sizes, cache):
    found, begin = [], 0
    for size in sizes:
        found.append(model(ids[:, begin : begin + size], past_key_values=cache).logits)
        begin += size
    return torch.cat(found, 1)


def same_keys(*caches):
    for first, second in zip(*(cache.layers for cache in caches), strict=True):
        assert torch.equal(first.keys, second.keys)
        assert torch.equal(first.values, second.values)


@pytest.mark.parametrize("selection", [POOLED, SinkLocal(sink_tokens=16)], ids=lambda s: s.kind)
@pytest.mark.parametrize("sizes", [(60, *[1] * 20), (37, 50, 1, 1, 7, 1), (1,) * 40])
def test_decoded_logits_are_those_of_the_chosen_pieces(selection, sizes, monkeypatch):
    model, ids = small("qwen3"), prompt(sum(sizes))
    policy = BudgetPolicy(TOKENS, selection=selection, block_tokens=16)
    with recorded(monkeypatch) as calls, attached(model, policy):
        found = steps(model, ids, sizes, GrowingCache(model.config))
    exact = brute_force(model, calls)
    wanted = steps(exact, ids, sizes, DynamicCache(config=model.config))
    assert torch.allclose(found.double(), wanted, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["llama", "mistral"]),
    st.lists(
        st.one_of(
            st.tuples(st.just("tokens"), st.sampled_from([1, 1, 1, 2, 17])),
            st.tuples(st.just("crop"), st.integers(1, 20)),
            st.tuples(st.just("reorder"), st.just(0)),
            st.tuples(st.just("copy"), st.just(0)),
            st.tuples(st.just("branch"), st.just(0)),
            st.tuples(st.just("reset"), st.just(0)),
        ),
        min_size=2,
        max_size=12,
    ),
)
def test_a_cache_however_treated_is_as_one_from_scratch(family, actions):
    """Two sequences; after every action the next token is as with transformers' own cache, whose
    pages are made anew at every token."""
    model, ids = small(family), prompt(400, sequences=2)
    ours, theirs = both(model)
    at = 0
    cropped = family == "llama"
    with torch.no_grad(), attached(model, POLICY):
        for what, amount in [("tokens", 40), *actions]:
            held = ours.get_seq_length()
            match what:
                case "tokens":
                    pass
                case "crop" if cropped and held > amount:
                    ours.crop(-amount)
                    theirs.crop(-amount)
                case "reorder" if cropped:
                    for cache in (ours, theirs):
                        cache.reorder_cache(torch.tensor([1, 0]))
                case "copy":
                    ours = copy.deepcopy(ours)
                case "branch" if cropped:
                    # A shallow copy that goes on by itself; then the original does.
                    branch = copy.copy(ours)
                    branch.layers = [copy.copy(layer) for layer in ours.layers]
                    model(ids[:, -3:], past_key_values=branch)
                case "reset":
                    for cache in (ours, theirs):
                        cache.reset()
            new = ids[:, at : at + (amount if what == "tokens" else 1)]
            at += new.shape[1]
            logits = [model(new, past_key_values=cache).logits for cache in (ours, theirs)]
            assert torch.equal(*logits)
            same_keys(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"do_sample": True, "num_return_sequences": 2},
        {"prompt_lookup_num_tokens": 3},
    ],
    ids=["greedy", "beams", "sampled", "looked_up"],
)
def test_generated_text_is_that_of_transformers_own_cache(family, options):
    if "prompt_lookup_num_tokens" in options and family in ("mistral", "gemma3", "qwen2"):
        pytest.skip("transformers cannot crop a window that is full")
    model, ids = small(family), prompt(70)
    options = {"max_new_tokens": 30, "do_sample": False, **options}
    found = []
    with attached(model, POLICY):
        for cache in both(model):
            torch.manual_seed(0)
            found.append(model.generate(ids, past_key_values=cache, **options))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("backend", "family", "lengths"),
    [
        ("torch", "llama", LENGTHS),
        ("triton", "llama", LENGTHS[1:]),
        ("triton", "qwen3", LENGTHS[1:]),
    ],
)
def test_a_padded_batch_decodes_as_each_does_alone(backend, family, lengths):
    """Triton fills up qwen3's head_dim of 24, for which no room has space."""
    model, (ids, real) = small(family), padded("left", lengths)
    policy = BudgetPolicy(TOKENS, block_tokens=16, backend=backend)
    options = {"max_new_tokens": 3, "do_sample": False}
    with attached(model, policy):
        together = model.generate(
            ids, attention_mask=real, past_key_values=GrowingCache(model.config), **options
        )
        for number, tokens in enumerate(lengths):
            alone = model.generate(prompt(tokens, number), **options)
            assert torch.equal(together[number, -3:], alone[0, -3:])


def test_other_attention_sees_the_same_keys():
    model, ids = small(), prompt(50)
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        ours, theirs = (steps(model, ids, (40, 1, 9), cache) for cache in both(model))
        assert torch.equal(ours, theirs)


def test_a_decode_copies_no_keys_and_bounds_its_own_alone(monkeypatch):
    model, ids = small(), prompt(60)
    cache = GrowingCache(model.config)
    whole, newest = [], []
    monkeypatch.setattr(rooms, "page_bounds", _counted(rooms.page_bounds, whole))
    monkeypatch.setattr(rooms, "update_page_bounds", _counted(rooms.update_page_bounds, newest))
    with torch.inference_mode(), attached(model, POLICY):
        steps(model, ids[:, :41], (40, 1), cache)
        before = [layer.keys.data_ptr() for layer in cache.layers]
        steps(model, ids[:, 41:], (1,) * 19, cache)
    assert [layer.keys.data_ptr() for layer in cache.layers] == before
    assert len(whole) == LAYERS
    # What a new key changes in its piece's bounds needs no other key of it.
    assert not newest


def _counted(work, calls):
    def counting(*arguments, **options):
        calls.append(arguments)
        return work(*arguments, **options)

    return counting


def test_layers_with_windows_keep_their_own():
    kinds = [type(layer) for layer in GrowingCache(small("gemma3").config).layers]
    assert kinds == [DynamicSlidingWindowLayer, GrowingLayer]


def test_a_wrong_number_of_sequences_is_refused_as_by_transformers():
    model = small()
    cache = GrowingCache(model.config)
    model(prompt(20, sequences=2), past_key_values=cache)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        model(prompt(1), past_key_values=cache)


def test_gradients_pass_as_through_transformers_own_cache():
    model, ids = small().requires_grad_(True), prompt(30)
    found = []
    for cache in both(model):
        model.zero_grad()
        steps(model, ids, (20, 5, 5), cache).square().mean().backward()
        found.append(model.model.layers[0].self_attn.k_proj.weight.grad.clone())
    assert torch.allclose(*found)


def test_a_policy_with_other_pieces_takes_over():
    model, ids = small(), prompt(80)
    other = BudgetPolicy([[32] * HEADS] * LAYERS, block_tokens=32)
    ours, theirs = both(model)
    found = []
    for cache in (ours, theirs):
        logits, at = [], 0
        for policy, size in (
            (POLICY, 40),
            (POLICY, 1),
            (other, 1),
            (POLICY, 1),
            (other, 20),
            (other, 1),
        ):
            with torch.no_grad(), attached(model, policy):
                logits.append(model(ids[:, at : at + size], past_key_values=cache).logits)
            at += size
        found.append(torch.cat(logits, 1))
    assert torch.equal(*found)
