"""`import_profile`: what tells the kind of a published file, and what does not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiles import import_profile
from profiles.errors import ProfileError, UnknownNameError
from profiles.importers.kinds import kind_of
from profiles.public_models import MODELS
from tests.profiles.published import OF_KIND, published

MOA = {"alphas": [[64] * 32] * 16, "betas": [[0.5] * 32] * 16}
S2 = {"num_heads": 32, "local_blocks": 32, "vert_stride": 8, "num_kv_heads": 8}
GATES = "\n".join(["\t".join(["0.9", "0.4"] * 4)] * 16)


def written(folder: Path, content: object, name: str = "Llama-3.2-1B.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("minference", "budgets"),
        ("moa", "rules"),
        ("duo-attention", "rules"),
        ("tangram", "samples"),
    ],
)
def test_published_files_tell_their_kind_and_model(kind: Any, form: str) -> None:
    path = published(kind, OF_KIND[kind])
    assert kind_of(path) == kind
    profile = import_profile(str(path), name="mine")
    assert (profile.name, profile.heads.form) == ("mine", form)
    assert profile == import_profile(path, name="mine", kind=kind)


def test_strided_parameters_tell_their_kind(tmp_path: Path) -> None:
    profile = import_profile(written(tmp_path, S2), name="s2")
    assert profile.selection.kind == "strided"


def test_classes_tell_their_kind(tmp_path: Path) -> None:
    classes = {"kv_head_classification": [["local"] * 8] * 16}
    file = {**classes, "kv_head_max_distance": [[1000] * 8] * 16}
    profile = import_profile(written(tmp_path, file), name="classes")
    assert np.unique(profile.heads.alpha_tokens).tolist() == [1004]
    with pytest.raises(ProfileError, match="mla_head_max_distance: classes of a model with multi"):
        import_profile(written(tmp_path, {"mla_head_max_distance": [[1]]}), name="x")


def test_scores_tell_their_kind_and_ask_for_a_capacity(tmp_path: Path) -> None:
    """Both projects write the same file; their words for it are both known."""
    scores = {f"{layer}-{head}": [head / 32] for layer in range(16) for head in range(32)}
    path = written(tmp_path, scores)
    with pytest.raises(ProfileError, match="scores are no budgets"):
        import_profile(path, name="x")
    found = import_profile(path, name="x", capacity_tokens=128, beta=2, window_tokens=16)
    assert np.mean(found.heads.tokens) == pytest.approx(128, abs=1)
    for kind in ("headkv", "retrieval-head"):
        options: dict[str, Any] = {"kind": kind, "capacity_tokens": 128, "beta": 2}
        assert import_profile(path, name="x", window_tokens=16, **options) == found


def test_the_model_by_name_by_shape_or_by_its_config(tmp_path: Path) -> None:
    path = written(tmp_path, MOA, "rules.json")
    config = tmp_path / "config.json"
    shape = {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    widths = {"hidden_size": 2048, "head_dim": 64, "intermediate_size": 8192}
    config.write_text(json.dumps({"model_type": "llama", **shape, **widths}))
    expected = MODELS["Llama-3.2-1B"]
    for found in (
        import_profile(path, name="x", model="llama 3.2 1b"),
        import_profile(path, name="x", model=expected),
        import_profile(path, name="x", config=str(config)),
    ):
        assert found.architecture == expected


def test_gates_take_their_options(tmp_path: Path) -> None:
    path = written(tmp_path, GATES, "Llama-3.2-1B.tsv")
    found = import_profile(path, name="x", threshold=0.5, sink_tokens=0, recent_tokens=100)
    assert np.max(found.heads.alpha_tokens) == 100
    assert np.mean(found.heads.beta) == 0.5
    assert np.max(import_profile(path, name="x").heads.alpha_tokens) == 128 + 256


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"heads": 3}, {}, "does not tell its kind; say which: minference, moa, duo-attention"),
        ("0.5\t0.5", {}, "not valid JSON"),
        (MOA, {"kind": "elastic"}, "kind: 'elastic' is not one of minference, moa"),
        (MOA, {"kind": "minference"}, "must be a JSON list"),
        (MOA, {"full_share": 0.5}, "full_share: is for duo-attention, not moa"),
        (MOA, {"sink_tokens": 0}, "sink_tokens: is for duo-attention, not moa"),
        (MOA, {"beta": 2.0}, "beta: is for headkv and retrieval-head, not moa"),
        (MOA, {"model": "Yi-9B", "config": "x"}, "model and config: give one of the two"),
        (MOA, {"model": MODELS["Yi-9B"]}, "architecture has 48 x 32"),
    ],
)
def test_what_cannot_be_imported(
    tmp_path: Path, content: object, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        import_profile(written(tmp_path, content), name="x", **options)


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"absent\.json: there is no such file"):
        import_profile(tmp_path / "absent.json", name="x")
    with pytest.raises(UnknownNameError, match="unknown model 'Llama-9'"):
        import_profile(written(tmp_path, MOA), name="x", model="Llama-9")
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with pytest.raises(ProfileError, match="--model NAME or --config"):
        import_profile(written(folder, MOA, "rules.json"), name="x")
