"""A tiny model of every family whose heads are permuted, saved in shards, and plans for them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from executor.weights.checkpoint import CONFIG, INDEX
from profiles.architecture import Architecture
from solver.plans import Plan
from tests.executor.plans import Placement, tiny_plan

WINDOW, VOCABULARY = 40, 89
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
EXPERTS = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama with biases": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": WINDOW}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"use_sliding_window": True, **SLIDING}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, SLIDING),
    "phi3": (Phi3ForCausalLM, Phi3Config, {"sliding_window": None}),
    "gpt_oss": (
        GptOssForCausalLM,
        GptOssConfig,
        {"num_local_experts": 4, "num_experts_per_tok": 2, **SLIDING},
    ),
    "mixtral": (
        MixtralForCausalLM,
        MixtralConfig,
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "qwen2_moe": (
        Qwen2MoeForCausalLM,
        Qwen2MoeConfig,
        {"shared_expert_intermediate_size": 24, **EXPERTS},
    ),
    "qwen3_moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig, EXPERTS),
}
SHAPE = Architecture(
    layers=2, query_heads=6, kv_heads=3, head_dim=16, hidden_size=96, dtype="float32"
)
COMMON = {
    "hidden_size": SHAPE.hidden_size,
    "intermediate_size": 48,
    "num_hidden_layers": SHAPE.layers,
    "num_attention_heads": SHAPE.query_heads,
    "num_key_value_heads": SHAPE.kv_heads,
    "head_dim": SHAPE.head_dim,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "eos_token_id": None,
    "bos_token_id": None,
}
WHOLE: list[Placement] = [
    [[(0, 1.0)], [(0, 1.0)], [(1, 1.0)], [(1, 1.0)], [(0, 1.0)], [(0, 1.0)]],
    [[(1, 1.0)], [(1, 1.0)], [(1, 1.0)], [(1, 1.0)], [(0, 1.0)], [(0, 1.0)]],
]
"""Two KV groups on one device and one on the other, in turn."""
DIVIDED: list[Placement] = [
    [[(0, 1.0)], [(0, 1.0)], [(0, 0.3), (1, 0.7)], [(1, 1.0)], [(1, 1.0)], [(1, 1.0)]],
    [[(0, 1.0)], [(0, 1.0)], [(0, 0.6), (1, 0.4)], [(0, 0.5), (1, 0.5)], [(1, 1.0)], [(1, 1.0)]],
]
"""A group of each layer on both devices."""


def save(family: str, folder: Path, **changes: object) -> Path:
    """A model of random weights, biases and norms too, in files of at most 60 KB."""
    made, kind, own = FAMILIES[family]
    torch.manual_seed(0)
    return _saved(made(kind(**{**COMMON, **own, **changes})), folder)


def save_with_pictures(folder: Path) -> Path:
    """A Gemma 3 that sees: its text is one part of its configuration."""
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 28}
    vision |= {"num_attention_heads": 2, "patch_size": 14}
    config = Gemma3Config(
        text_config={**COMMON, **SLIDING}, vision_config=vision, mm_tokens_per_image=4
    )
    torch.manual_seed(0)
    return _saved(Gemma3ForConditionalGeneration(config), folder)


def save_with_packed_experts(folder: Path) -> Path:
    """A gpt-oss as it is published: experts in MXFP4, two numbers a byte and a scale for every 32,
    all else in bfloat16."""
    save("gpt_oss", folder, intermediate_size=64, dtype="bfloat16")
    random = torch.Generator().manual_seed(0)
    index = json.loads((folder / INDEX).read_text())
    for file in sorted(set(index["weight_map"].values())):
        tensors = {}
        for name, tensor in load_file(folder / file).items():
            if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                tensors[name] = tensor.bfloat16()
                continue
            experts, width, rows = tensor.shape
            packed, exponents = (experts, rows, width // 32, 16), (experts, rows, width // 32)
            uint8: dict[str, Any] = {"dtype": torch.uint8, "generator": random}
            tensors[f"{name}_blocks"] = torch.randint(0, 256, packed, **uint8)
            # Powers of two from -9 on: as large as attention's weights.
            tensors[f"{name}_scales"] = torch.randint(118, 122, exponents, **uint8)
            del index["weight_map"][name]
        index["weight_map"] |= dict.fromkeys(tensors, file)
        save_file(tensors, folder / file, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps(index))
    config = json.loads((folder / CONFIG).read_text())
    whole = ["model.layers.*.self_attn", "model.layers.*.mlp.router"]
    config["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [*whole, "model.embed_tokens", "lm_head"],
    }
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


def _saved(model: torch.nn.Module, folder: Path) -> Path:
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight", "sinks")):
            torch.nn.init.normal_(parameter, mean=float(name.endswith("norm.weight")), std=0.3)
    model.save_pretrained(folder, max_shard_size="60KB")
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def planned(
    layers: list[Placement], slots: int | None, devices: int = 2, shape: Architecture = SHAPE
) -> Plan:
    """A plan by hand whose budgets differ by head, in pieces of 16 under blocks of 64."""
    size = {"kv_heads": shape.kv_heads, "devices": devices, "layers": len(layers)}
    each = [tiny_plan(layer, **size).layers[0] for layer in layers]
    budgets = [[64 * (1 + (3 * head) % 5) for head in range(shape.query_heads)]] * len(layers)
    made = tiny_plan(layers[0], **size)
    step = made.workload.model_copy(update={"block_tokens": 64, "piece_tokens": 16})
    return made.model_copy(
        update={
            "layers": each,
            "slots": slots,
            "architecture": shape,
            "budgets": budgets,
            "workload": step,
        }
    ).identified()
