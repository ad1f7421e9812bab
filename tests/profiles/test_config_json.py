import json
from pathlib import Path
from typing import Any

import pytest

from profiles.architecture import Architecture
from profiles.config_json import architecture_from_config
from profiles.errors import ProfileError
from profiles.public_models import MODELS
from tests.profiles.published import case

LLAMA_31_8B: dict[str, Any] = {
    "model_type": "llama",
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
GLM_4_9B: dict[str, Any] = {
    "model_type": "chatglm",
    "ffn_hidden_size": 13696,
    "num_layers": 40,
    "num_attention_heads": 32,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "kv_channels": 128,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
}
GPT_OSS_20B: dict[str, Any] = {
    "model_type": "gpt_oss",
    "intermediate_size": 2880,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "experts_per_token": 4,
    "num_hidden_layers": 24,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_size": 2880,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}
GEMMA_3_12B: dict[str, Any] = {
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "vision_config": {"num_hidden_layers": 27, "hidden_size": 1152},
    "text_config": {
        "model_type": "gemma3_text",
        "intermediate_size": 15360,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "hidden_size": 3840,
        "sliding_window": 1024,
    },
}


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(config: Any) -> Architecture:
        path = tmp_path / "config.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return architecture_from_config(path)

    return read


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (LLAMA_31_8B, "Llama-3.1-8B"),
        (GLM_4_9B, "GLM-4-9B"),
        (GEMMA_3_12B, "Gemma-3-12B"),
        (GPT_OSS_20B, "GPT-OSS-20B"),
    ],
)
def test_configs_of_known_models(read: Any, config: dict[str, Any], model: str) -> None:
    assert read(config) == MODELS[model]


@pytest.mark.parametrize(
    ("fields", "mlp"),
    [
        ({}, (14336, 3, 1, 1)),
        (
            {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
            (14336, 3, 8, 2),
        ),
        (
            {
                "model_type": "qwen3_moe",
                "moe_intermediate_size": 768,
                "num_experts": 128,
                "num_experts_per_tok": 8,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
            },
            (768, 3, 128, 8),
        ),
        ({"model_type": "starcoder2"}, (14336, 2, 1, 1)),
        ({"model_type": "opt", "intermediate_size": None, "ffn_dim": 8192}, (8192, 2, 1, 1)),
    ],
)
def test_the_mlp_of_every_layer(read: Any, fields: dict[str, Any], mlp: tuple[int, ...]) -> None:
    found = read(LLAMA_31_8B | fields)
    shape = (found.mlp_size, found.mlp_matrices, found.experts, found.experts_per_token)
    assert shape == mlp


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "of-tomorrow"},
        {"model_type": None},
        {"intermediate_size": None},
        {"intermediate_size": [8192, 16384]},
        {"model_type": "qwen2_moe", "num_experts": 60, "num_experts_per_tok": 4}
        | {"shared_expert_intermediate_size": 5632},
        {"num_local_experts": 8},
        {"num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": [0]},
        {"num_experts": 8, "num_experts_per_tok": 2, "decoder_sparse_step": 2},
    ],
)
def test_an_mlp_that_is_not_told_is_left_open(read: Any, fields: dict[str, Any]) -> None:
    found = read(LLAMA_31_8B | fields)
    assert found.mlp_size is None
    assert found == read(LLAMA_31_8B).attention


def test_kv_heads_default_to_attention_heads(read: Any) -> None:
    config = {key: value for key, value in LLAMA_31_8B.items() if key != "num_key_value_heads"}
    assert read(config).kv_heads == 32
    assert read(GLM_4_9B | {"multi_query_attention": False}).kv_heads == 32


@pytest.mark.parametrize(
    ("fields", "kv_heads"),
    [
        ({"num_kv_heads": 2}, 2),
        ({"n_head_kv": 4}, 4),
        ({"n_heads_kv": 4}, 4),
        ({"num_heads_kv": 4}, 4),
        ({"kv_num_heads": 4}, 4),
        # Falcon: one KV head in its older layout, counted ones in the newer.
        ({"multi_query": True}, 1),
        ({"multi_query": True, "num_kv_heads": 32}, 1),
        ({"multi_query": True, "num_kv_heads": 8, "new_decoder_architecture": True}, 8),
        ({"multi_query": False}, 32),
    ],
)
def test_spellings_of_kv_heads(read: Any, fields: dict[str, Any], kv_heads: int) -> None:
    assert read(LLAMA_31_8B | {"num_key_value_heads": None} | fields).kv_heads == kv_heads


@pytest.mark.parametrize(
    "fields",
    [
        {"num_query_groups": 8},
        {"kv_n_heads": 8},
        {"attn_config": {"kv_n_heads": 8}},
        {"num_key_value_groups": 4},
        {"num_kv_groups": 8},
        {"num_attention_groups": 8},
        {"n_heads_in_group": 4},
        {"attention": {"kv_heads": 8}},
        {"gqa": True},
        {"multi_query_attention": True},
        {"multi_query": True, "new_decoder_architecture": True},
    ],
)
def test_an_unknown_spelling_of_kv_heads_is_asked_for(read: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ProfileError, match="say how many there are as num_key_value_heads"):
        read(LLAMA_31_8B | {"num_key_value_heads": None} | fields)
    assert read(LLAMA_31_8B | fields | {"multi_query": None}).kv_heads == 8


@pytest.mark.parametrize(
    ("file", "kv_heads"), [("config-multi-query.json", 1), ("config-num-kv-heads.json", 2)]
)
def test_falcons(file: str, kv_heads: int) -> None:
    found = architecture_from_config(case(file))
    assert (found.layers, found.query_heads, found.kv_heads) == (2, 8, kv_heads)


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({"sliding_window": None}, ()),
        ({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": False}, ()),
        (
            {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2},
            (None, None, 64, 64),
        ),
        ({"model_type": "mistral", "sliding_window": 64}, (64, 64, 64, 64)),
        ({"model_type": "gemma2", "sliding_window": 64}, (64, None, 64, None)),
        ({"sliding_window": 64, "sliding_window_pattern": 3}, (64, 64, None, 64)),
        ({"model_type": "mistral", "window_size": 64}, (64, 64, 64, 64)),
        (
            {"model_type": "gemma2", "sliding_window": 64, "sliding_window_size": 64},
            (64, None, 64, None),
        ),
        ({"sliding_window": 64, "layer_types": ["full_attention"] * 4}, ()),
        (
            {"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"] * 2},
            (None, 64, None, 64),
        ),
    ],
)
def test_windows(read: Any, fields: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    assert read(LLAMA_31_8B | {"num_hidden_layers": 4} | fields).windows == windows


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"attn_layer_period": 8, "attn_layer_offset": 4}, "attn_layer_period, attn_layer_offset"),
        ({"hybrid_override_pattern": "M-M*-"}, "hybrid_override_pattern"),
        ({"layers_block_type": ["mamba", "hybrid"] * 16}, "layers_block_type"),
        ({"attn_layer_indices": [0]}, "attn_layer_indices"),
        ({"block_types": ["recurrent", "attention"]}, "block_types"),
        ({"attention_window_size": 2048}, "attention_window_size"),
        ({"attn_type_list": [0, 1] * 16}, "attn_type_list"),
        ({"full_attention_interval": 4}, "full_attention_interval"),
        ({"attention_chunk_size": 8192}, "attention_chunk_size"),
        ({"local_attention": 128}, "local_attention"),
        ({"global_attn_every_n_layers": 3}, "global_attn_every_n_layers"),
        ({"attn_config": {"sliding_window_sizes": [64]}}, "sliding_window_sizes"),
        ({"block_configs": [{"attention": {"n_heads_in_group": 8}}]}, "block_configs"),
        # Beside kinds of layers that are known: some have other heads.
        ({"layer_types": ["full_attention"] * 32, "swa_num_key_value_heads": 4}, "swa_num_key"),
        ({"num_attention_heads_per_layer": [32, 48] * 16}, "num_attention_heads_per_layer"),
    ],
)
def test_layers_that_are_unlike_in_an_unknown_spelling_are_asked_for(
    read: Any, fields: dict[str, Any], name: str
) -> None:
    with pytest.raises(ProfileError, match=rf"{name}.* speaks of kinds .* layer_types, 32 of"):
        read(LLAMA_31_8B | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"attn_layer_indices": None, "block_configs": [], "attention_chunk_size": None},
        {"num_kv_groups": None, "local_attention": False, "window_size": 0},
        {"layers_block_type": ["attention"] * 32, "sliding_window_size": -1},
        {"attn_config": {"attn_type": "multihead_attention", "attn_pdrop": 0.1}},
        {"layer_types": ["full_attention"] * 32, "full_attention_interval": 1},
        # What layers have beside attention, or in it without changing who sees what.
        {"attention_bias": True, "attention_multiplier": 0.5, "attn_implementation": "eager"},
        {"scale_attn_by_inverse_layer_idx": True, "no_rope_layers": [1, 0] * 16},
        {"mlp_only_layers": [0], "rope_local_base_freq": 1e4, "num_local_experts": 8},
        {"moe_layer_freq": [0, 1], "block_size": 4096, "attn_layernorm": True},
    ],
)
def test_what_makes_no_layer_unlike_is_read(read: Any, fields: dict[str, Any]) -> None:
    assert read(LLAMA_31_8B | fields).attention == read(LLAMA_31_8B).attention


def test_windows_beside_a_text_config_are_of_something_else(read: Any) -> None:
    found = read({"text_config": LLAMA_31_8B, "window_size": 15, "downsample_layer_type": "conv"})
    assert found == read(LLAMA_31_8B)


def test_newer_dtype_name_and_default(read: Any) -> None:
    config = {key: value for key, value in LLAMA_31_8B.items() if key != "torch_dtype"}
    assert read(config).dtype == "bfloat16"
    assert read(config | {"dtype": "float16"}).dtype == "float16"


@pytest.mark.parametrize("field", ["num_hidden_layers", "num_attention_heads", "hidden_size"])
def test_a_missing_field_is_named(read: Any, field: str) -> None:
    config = {key: value for key, value in LLAMA_31_8B.items() if key != field}
    with pytest.raises(ProfileError, match=rf"config\.json: {field} is missing"):
        read(config)


@pytest.mark.parametrize("value", [0, -1, 2.5, "32", True, [32]])
def test_counts_must_be_positive_whole_numbers(read: Any, value: object) -> None:
    with pytest.raises(ProfileError, match="num_hidden_layers must be a positive whole number"):
        read(LLAMA_31_8B | {"num_hidden_layers": value})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LLAMA_31_8B | {"torch_dtype": "float8_e4m3fn"}, "torch_dtype 'float8_e4m3fn' is not one"),
        (LLAMA_31_8B | {"num_key_value_heads": 5}, "must be a multiple of kv_heads"),
        (LLAMA_31_8B | {"num_hidden_layers": 10**30}, "layers"),
        (LLAMA_31_8B | {"hidden_size": 4097}, "head_dim is missing, and hidden_size 4097"),
        (LLAMA_31_8B | {"multi_query": 3}, "multi_query must be true or false"),
        (LLAMA_31_8B | {"kv_lora_rank": 512}, "kv_lora_rank: multi-head latent attention"),
        (LLAMA_31_8B | {"sliding_window": 64}, "say so as layer_types, 32 of full_attention or"),
        (LLAMA_31_8B | {"window_size": 64}, "window_size 64, but not which layers it holds for"),
        (LLAMA_31_8B | {"layer_types": ["full_attention"]}, "one kind for 32 layers"),
        (LLAMA_31_8B | {"layer_types": ["linear_attention"] * 32}, "layer 0 is of 'linear_atten"),
        (LLAMA_31_8B | {"layer_types": ["sliding_attention"] * 32}, "sliding_window is missing"),
        ("", "not valid JSON"),
        ('{"num_hidden_layers": 32', "not valid JSON"),
        ("[]", "must be a JSON object"),
    ],
)
def test_broken_configs(read: Any, config: Any, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        read(config)


def test_an_absent_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"config\.json: cannot be read"):
        architecture_from_config(tmp_path / "config.json")
