import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import ProfileError, UnknownNameError
from profiles.public_models import MODELS, model_architecture, recognise, resolve_architecture


@pytest.mark.parametrize("name", MODELS)
def test_every_name_finds_itself_and_nothing_else(name: str) -> None:
    assert model_architecture(name) is MODELS[name]
    assert recognise(Path(f"{name}.json")) == name


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(["", " ", "_", "--", "."]), st.booleans())
def test_case_and_punctuation_do_not_matter(name: str, mark: str, upper: bool) -> None:
    spelt = name.replace("-", mark)
    assert model_architecture(spelt.upper() if upper else spelt.lower()) is MODELS[name]


def test_unknown_models_get_the_known_ones_listed() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'Llama-9'.*Llama-3\.1-8B.*Yi-9B"):
        model_architecture("Llama-9")


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern.json", "Llama-3.1-8B"),
        ("Llama_3_8B_Instruct_262k_kv_out_v32_fit_o_best_pattern.json", "Llama-3-8B"),
        ("Meta-Llama-3.1-8B-Instruct.tsv", "Llama-3.1-8B"),
        ("lmsys--vicuna-7b-v1.5-16k.json", "vicuna-7b"),
        ("Qwen2.5_7B_Instruct_128k_instruct_kv_out.json", "Qwen2.5-7B"),
        ("Qwen2_7B_Instruct_128k.json", "Qwen2-7B"),
        ("snapkv__qwen3-4b-instruct-2507__profile_perlayer.npz", "Qwen3-4B"),
        ("GLM_4_9B_1M.json", "GLM-4-9B"),
        ("vicuna-7b-tokens-on-Llama-3.1-8B.json", "Llama-3.1-8B"),
        ("gradientai--Llama-3-70B-Instruct-262k/moa_alpha_beta.json", "Llama-3-70B"),
        ("Mistral-7B-Instruct-v0.2/lr=0.02-reg=0.05/full_attention_heads.tsv", "Mistral-7B"),
    ],
)
def test_published_names_are_recognised(path: str, model: str) -> None:
    assert recognise(Path(path)) == model


@pytest.mark.parametrize(
    "path",
    [
        "profile.json",
        "DeepSeek-R1-Distill-Llama-8B.json",
        "Llama-3-8Bit.json",
        "Llama-13-8B.json",
        "vicuna-7b-against-Yi-9B-and-vicuna-13b.json",
        "",
    ],
)
def test_a_guess_is_no_recognition(path: str) -> None:
    assert recognise(Path(path)) is None


def test_config_then_model_then_name(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    fields = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 128}
    config.write_text(json.dumps(fields))
    source = tmp_path / "Qwen3-4B.json"
    assert resolve_architecture(source, "Yi-9B", config).layers == 3
    assert resolve_architecture(source, "Yi-9B") is MODELS["Yi-9B"]
    assert resolve_architecture(source) is MODELS["Qwen3-4B"]
    with pytest.raises(
        ProfileError, match=r"heads\.json: .*give model or config \(--model NAME or --config config"
    ):
        resolve_architecture(Path("heads.json"))
