"""Small models of random weights, and what their attention should have been, in float64."""

import copy
from contextlib import contextmanager

import torch
from transformers import (
    AttentionInterface,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from executor.inference import block_attention

from ..kernels.reference import list_of

LAYERS, HEADS, KV_HEADS, WINDOW, VOCABULARY = 2, 4, 2, 24, 89
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"use_sliding_window": True, **SLIDING}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 24}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": WINDOW}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {"query_pre_attn_scalar": 10, **SLIDING}),
    "gpt_oss": (
        GptOssForCausalLM,
        GptOssConfig,
        {"num_local_experts": 2, "num_experts_per_tok": 1, **SLIDING},
    ),
}


def config(family="llama", **changes):
    _, kind, own = FAMILIES[family]
    common = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": 16,
        "vocab_size": VOCABULARY,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "eos_token_id": None,
        "bos_token_id": None,
        "attn_implementation": "eager",
    }
    return kind(**{**common, **own, **changes})


def small(family="llama", seed=0, **changes):
    """A model that attends eagerly; biases, which start at 0, and sinks are drawn too."""
    torch.manual_seed(seed)
    model = FAMILIES[family][0](config(family, **changes)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return model.requires_grad_(False)


def prompt(tokens, seed=0, sequences=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (sequences, tokens), generator=generator)


def logits_in_steps(model, ids, sizes):
    """Logits [tokens, vocabulary] of forward passes over so many tokens each, with a cache."""
    cache, found, begin = None, [], 0
    for size in sizes:
        step = model(ids[:, begin : begin + size], past_key_values=cache, use_cache=True)
        cache, begin = step.past_key_values, begin + size
        found.append(step.logits[0])
    return torch.cat(found)


@contextmanager
def recorded(monkeypatch):
    """(step, result) of every call of the executor within."""
    calls = []

    def recorder(compute):
        def recording(q, cache, step, backend, **options):
            result = compute(q, cache, step, backend, **options)
            calls.append((step, result))
            return result

        return recording

    with monkeypatch.context() as patch:
        for name in ("attend", "run"):
            patch.setattr(block_attention, name, recorder(getattr(block_attention, name)))
        yield calls


def brute_force(model, calls):
    """A float64 copy that attends just to the blocks of the recorded calls, in their order."""
    remaining = iter(calls)

    def attention(_, query, key, value, __, scaling, s_aux=None, **___):
        seen = visible(*next(remaining), query.shape[2], key.shape[2])
        keys, values = (x[0].repeat_interleave(HEADS // KV_HEADS, 0) for x in (key, value))
        scores = (query[0] @ keys.mT * scaling).masked_fill(~seen, -torch.inf)
        if s_aux is not None:
            sinks = s_aux[:, None, None].expand(-1, scores.shape[1], 1)
            scores = torch.cat([scores, sinks], 2)
        weights = scores.softmax(-1)[..., : keys.shape[1]]
        return (weights @ values).transpose(0, 1)[None], None

    AttentionInterface.register("brute_force", attention)
    exact = copy.deepcopy(model).double()
    exact.set_attn_implementation("brute_force")
    return exact


def visible(step, result, new, total):
    """Which keys every row sees, bool [heads, new, total]."""
    size = step.block_tokens
    seen = torch.zeros(HEADS, new, total, dtype=torch.bool)
    blocks = torch.arange(total) // size
    token = torch.arange(total - new, total)
    if step.prefill is not None:
        layout = step.prefill
        for number, (entry, row) in enumerate(zip(layout.entry, layout.query_block, strict=True)):
            chosen = torch.isin(blocks, torch.tensor(list_of(layout, result.indices, number)))
            seen[layout.heads[entry].head, token // size == row] = chosen
    if step.decode is not None:
        lists = zip(step.decode.start, result.lists.first, result.lists.count, strict=True)
        for entry, (start, first, count) in zip(step.decode.lists, lists, strict=True):
            chosen = torch.arange(first, first + count)
            if start >= 0:
                chosen = result.lists.indices[start + first :][:count]
            seen[list(entry.heads)] = torch.isin(blocks, chosen)
    return seen & (torch.arange(total) <= token[:, None])
