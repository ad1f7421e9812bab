"""Which model is evaluated, and whether the profile was measured on its weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from executor.errors import EvaluationError
from executor.evaluation.asked import ask
from executor.evaluation.caveats import caveats
from executor.evaluation.loaded import load
from executor.evaluation.makespan import Devices
from executor.evaluation.runner import Options
from executor.evaluation.scoring import answer, surprise
from profiles import fetched
from profiles.measurement import Measurement
from profiles.measuring import loading
from profiles.selection import POOLED, SAMPLED
from profiles.tasks import ruler
from tests.executor.evaluation.builders import save_tiny, tiny_profile

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path)[0]


def options(**changes: Any) -> Options:
    fields: dict[str, Any] = {"contexts": (256,), "densities": (0.5,), "methods": ("dense",)}
    fields |= {"tasks": ("vt",), "samples": 1, "seed": 0, "floor_tokens": 32}
    fields |= {"block_tokens": 16, "piece_tokens": 16}
    return Options(**{**fields, "selection": POOLED, "devices": Devices(1, "cpu"), **changes})


def measured_on(weights_sha256: str) -> Measurement:
    return Measurement(
        model="runs/model",
        weights_sha256=weights_sha256,
        data_sha256="0" * 64,
        prompts={"vt": 1},
        rows=8,
        seed=0,
        block_tokens=16,
        sink_tokens=16,
        local_tokens=16,
        versions={},
        seconds=1.0,
    )


def test_the_shipped_model_goes_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "REFERENCE_FOLDER", folder)
    assert load("reference").weights_sha256 == load(str(folder)).weights_sha256


def test_what_a_profile_was_not_measured_with_is_noted(folder: Path) -> None:
    loaded, plain = load(str(folder)), tiny_profile()
    own = loading.sha256_of(loading.weights_of(folder))
    assert caveats(loaded, plain, options()) == []
    [context] = caveats(loaded, plain, options(contexts=(256, 128)))
    assert "128 tokens are outside the contexts of profile tiny, 256 to 256" in context
    heads = {**plain.heads.model_dump(), "selected_recovery": plain.heads.recovery}
    profile = tiny_profile(measurement=measured_on(own), heads=heads, selection=POOLED.model_dump())
    assert caveats(loaded, profile, options()) == []
    [blocks] = caveats(loaded, profile, options(block_tokens=32, piece_tokens=16))
    assert "blocks of 16 tokens and pieces of 16, not of 32 and 16" in blocks
    [selection] = caveats(loaded, profile, options(selection=SAMPLED))
    assert "curves of the selection 'pooled', and blocks are chosen by 'sampled'" in selection
    assert caveats(loaded, profile, options(selection=SAMPLED, curve="oracle")) == []
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    [weights] = caveats(load(str(folder)), profile, options())
    assert f"measured on other weights (runs/model, {own[:12]})" in weights


def test_weights_that_are_cut_short_missing_or_nan(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EvaluationError, match=r"--model .*: cannot be loaded"):
        load(str(folder))
    (folder / WEIGHTS).write_bytes(whole)
    tensors = load_file(folder / WEIGHTS)
    lost = tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(EvaluationError, match="1 weights are missing from its files"):
        load(str(folder))
    nan = {**tensors, "model.layers.0.mlp.up_proj.weight": torch.full_like(lost, torch.nan)}
    save_file(nan, folder / WEIGHTS, {"format": "pt"})
    loaded = load(str(folder))
    sample = ruler.make("niah_single_1", 96, 1, loaded.count)
    with pytest.raises(EvaluationError, match="logits are NaN"):
        answer(loaded.model, ask(sample, 1, loaded.tokenizer), None, 16)
    with pytest.raises(EvaluationError, match="logits are NaN"):
        surprise(loaded.model, tuple(range(2, 66)), 32, None, 16)
