import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.heads import BudgetsForm
from profiles.importers import minference
from profiles.public_models import MODELS
from profiles.selection import VerticalSlash
from tests.profiles.published import published

TINY = Architecture(layers=2, query_heads=2, kv_heads=1, head_dim=64, hidden_size=128)
HEAD = ["vertical_and_slash", 30, 800, 0.9]
LAYER = {"0": HEAD, "1": ["stream_llm", 100, 900, 7_000_000]}


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(document: Any) -> list[list[float]]:
        path = tmp_path / "patterns.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        profile = minference.read(path, "tiny", TINY)
        assert isinstance(profile.heads, BudgetsForm)
        assert profile.selection == VerticalSlash()
        return profile.heads.tokens

    return read


def test_a_budget_is_the_two_key_counts_and_never_the_score(read: Any) -> None:
    assert read([LAYER, LAYER]) == [[830, 1000], [830, 1000]]


@pytest.mark.parametrize(
    ("file", "model", "mean", "distinct"),
    [
        ("Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern.json", "Llama-3.1-8B", 3004, 6),
        (
            "Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern_v2.json",
            "Llama-3.1-8B",
            2560,
            1,
        ),
        (
            "Qwen2.5_72B_Instruct_128k_kv_out_v32_fit_o_best_pattern.json",
            "Qwen2.5-72B",
            7048,
            None,
        ),
        (
            "Qwen2.5_7B_Instruct_128k_instruct_kv_out_v32_fit_o_best_pattern.json",
            "Qwen2.5-7B",
            4854,
            None,
        ),
    ],
)
def test_published_files(file: str, model: str, mean: int, distinct: int | None) -> None:
    path = published("minference", file)
    profile = minference.read(path, "real", MODELS[model])
    assert isinstance(profile.heads, BudgetsForm)
    tokens = np.array(profile.heads.tokens)
    assert round(tokens.mean()) == mean
    assert distinct in (None, len(np.unique(tokens)))
    assert file in profile.source
    assert "MInference" in profile.source
    assert not profile.synthetic


def test_another_models_file_is_refused() -> None:
    path = published(
        "minference", "Qwen2.5_7B_Instruct_128k_instruct_kv_out_v32_fit_o_best_pattern.json"
    )
    with pytest.raises(ProfileError, match=r"28 x 28 \(layers x query heads\), but .* 32 x 32"):
        minference.read(path, "x", MODELS["Llama-3.1-8B"])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "must be a JSON list with one object"),
        ({"0": HEAD}, "must be a JSON list with one object"),
        ([LAYER, []], "layer 1: must be an object"),
        ([LAYER, {"0": HEAD, "2": HEAD}], "layer 1: head 1 is missing"),
        ([LAYER, {"0": HEAD}], "layer 1: 1 heads, but layer 0 has 2"),
        ([LAYER], r"1 x 2 \(layers x query heads\), but the model has 2 x 2"),
        (
            [LAYER, {"0": HEAD, "1": ["block_sparse", 1, 2, 0]}],
            "layer 1, head 1: unknown pattern 'block_sparse': known are vertical_and_slash",
        ),
        ([LAYER, {"0": HEAD, "1": HEAD[:3]}], "layer 1, head 1: must be"),
        ([LAYER, {"0": HEAD, "1": [["x"], 1, 2, 0]}], "layer 1, head 1: unknown pattern"),
        ([LAYER, {"0": HEAD, "1": ["stream_llm", -1, 2, 0]}], "layer 1, head 1: -1 is not"),
        ([LAYER, {"0": HEAD, "1": ["stream_llm", float("nan"), 2, 0]}], "layer 1, head 1: nan"),
        ([LAYER, {"0": HEAD, "1": ["stream_llm", 0, 0, 0]}], "tokens: layer 1, head 1: must be"),
        ([LAYER, {"0": HEAD, "1": ["stream_llm", 10**400, 0, 0]}], "tokens.1.1"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_broken_files(read: Any, document: Any, message: str) -> None:
    with pytest.raises(ProfileError, match=rf"patterns\.json: .*{message}|{message}"):
        read(document)


TEXT = json.dumps([LAYER, LAYER])


@given(st.integers(0, len(TEXT) - 1))
def test_every_truncation_is_refused(tmp_path_factory: Any, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_text(TEXT[:length])
    with pytest.raises(ProfileError, match=r"cut\.json: not valid JSON"):
        minference.read(path, "x", TINY)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.json: cannot be read: No such file"):
        minference.read(tmp_path / "none.json", "x", TINY)
