import json
from pathlib import Path
from typing import Any

import pytest

from profiles.architecture import Architecture
from profiles.config_json import architecture_from_config
from profiles.errors import ProfileError
from profiles.public_models import MODELS

LLAMA_31_8B: dict[str, Any] = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
GLM_4_9B: dict[str, Any] = {
    "num_layers": 40,
    "num_attention_heads": 32,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "kv_channels": 128,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
}
GEMMA_3_12B: dict[str, Any] = {
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "vision_config": {"num_hidden_layers": 27, "hidden_size": 1152},
    "text_config": {
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "hidden_size": 3840,
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
    [(LLAMA_31_8B, "Llama-3.1-8B"), (GLM_4_9B, "GLM-4-9B"), (GEMMA_3_12B, "Gemma-3-12B")],
)
def test_configs_of_known_models(read: Any, config: dict[str, Any], model: str) -> None:
    assert read(config) == MODELS[model]


def test_kv_heads_default_to_attention_heads(read: Any) -> None:
    config = {key: value for key, value in LLAMA_31_8B.items() if key != "num_key_value_heads"}
    assert read(config).kv_heads == 32
    assert read(GLM_4_9B | {"multi_query_attention": False}).kv_heads == 32


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
