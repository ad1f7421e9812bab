"""Bad input: what, where, and what would be right."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from profiles.config_json import architecture_of
from profiles.errors import HplbError, MeasuringError
from profiles.measuring import capture
from profiles.measuring.choices import Choices
from profiles.measuring.loading import folder_of, load, require_tensors
from profiles.measuring.parts import Parts
from profiles.measuring.run import measure_profile
from profiles.selection import Strided

from . import tiny


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    data = tiny.prompts(tmp_path / "data.jsonl", {"one": [80]})
    model = tiny.model(tmp_path / "llama")
    return Choices(str(model), data, (64,), block_tokens=16, rows=8)


def run(choices: Choices) -> None:
    state = Path(choices.data).parent / "state"
    measure_profile(choices, "m", Parts(state), None, lambda *_: None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_tokens": 48}, "block_tokens: 48 is not one of 16, 32, 64, 128"),
        ({"piece_tokens": 8}, "piece_tokens: 8 is not one of 16, 32, 64, 128"),
        ({"piece_tokens": 128}, "piece_tokens: 128 does not divide block_tokens, 64"),
        ({"rows": 0}, "rows: 0 must be at least 1"),
        ({"contexts": ()}, "contexts: none given"),
        ({"contexts": (64, 64)}, "strictly increasing"),
        ({"contexts": (64,)}, "64 tokens are too few: at least 128"),
        ({"contexts": (128,), "rows": 129}, "at least 129"),
        ({"prompts": 0}, "prompts: 0"),
        ({"sink_tokens": -1}, "sink_tokens: -1"),
        ({"seed": -1}, "seed: -1"),
        ({"dtype": "int8"}, "dtype: 'int8' is not one of"),
        ({"device": "gpu"}, "device: 'gpu' is not cpu"),
        ({"selection": Strided(block_tokens=64, local_blocks=1, vert_stride=1)}, "strided"),
    ],
)
def test_choices(changes: dict, message: str) -> None:
    with pytest.raises(MeasuringError, match=message):
        Choices(**{"model": "m", "data": Path("d"), "contexts": (1024,), **changes})


def test_missing_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MeasuringError, match="no such folder"):
        folder_of(str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(MeasuringError, match="no such folder"):
        folder_of(str(tmp_path / "file"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MeasuringError, match="not to be had from the hub"):
        folder_of("nobody/nothing")


def test_models_that_cannot_be_read(choices: Choices) -> None:
    weights = Path(choices.model) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MeasuringError, match="llama: cannot be loaded"):
        load(choices)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    lost = "model.layers.1.self_attn.k_proj.weight"
    kept = tensors.pop(lost)
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(MeasuringError, match=f"1 weights are missing from its files, {lost}"):
        load(choices)
    kept[:8] = torch.nan
    save_file({**tensors, lost: kept}, weights, {"format": "pt"})
    with pytest.raises(
        MeasuringError,
        match=r"prompt 1 \(one\) at 64 tokens: layer 1, query heads 0, 1: attention is not finite",
    ):
        run(choices)
    weights.unlink()
    with pytest.raises(MeasuringError, match=r"has no \*\.safetensors"):
        load(choices)
    (Path(choices.model) / "config.json").unlink()
    with pytest.raises(HplbError, match=r"config\.json"):
        load(choices)


def test_contexts_without_prompts_or_positions(choices: Choices) -> None:
    with pytest.raises(MeasuringError, match=r"context of 128 tokens: the longest .* has 80"):
        run(replace(choices, contexts=(64, 128)))
    with pytest.raises(MeasuringError, match=r"2048 tokens, but .*llama has positions for 1024"):
        run(replace(choices, contexts=(2048,)))
    choices.data.write_text("")
    with pytest.raises(HplbError, match="no prompts"):
        run(choices)
    choices.data.write_text(json.dumps({"text": "w1", "tokens": 64}) + "\n")
    with pytest.raises(MeasuringError, match="the longest that could serve it has 1"):
        run(choices)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gpt_oss", {"num_local_experts": 4}, "s_aux"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "interface|cannot be loaded"),
        ("llama4_text", {"attention_chunk_size": 32}, "is of 'chunked_attention'"),
    ],
)
def test_attention_that_is_more_than_causal_softmax(
    choices: Choices, tmp_path: Path, family: str, changes: dict, message: str
) -> None:
    config = AutoConfig.for_model(family, **{**tiny.SHAPE, **changes})
    folder = tmp_path / family
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tiny.tokenizer(folder)
    with pytest.raises(HplbError, match=message):
        run(replace(choices, model=str(folder)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_key_value_heads": 1}, "layer 0 has 4 query and 2 KV heads .* one of 4 query and 1"),
        ({"sliding_window": 32}, "no window, but .* a window of 32"),
        ({"num_hidden_layers": 3}, "2 of its 3 layers"),
    ],
)
def test_what_the_model_computes_is_held_against_its_config(
    tmp_path: Path, changes: dict, says: str
) -> None:
    """As where a configuration has been read wrongly."""
    folder = tiny.model(tmp_path / "llama", "llama")
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=capture.NAME)
    config = {**json.loads((folder / "config.json").read_text()), "model_type": "mistral"}
    require_tensors("tiny", model, architecture_of(config, "tiny"))
    with pytest.raises(MeasuringError, match=says):
        require_tensors("tiny", model, architecture_of(config | changes, "tiny"))
