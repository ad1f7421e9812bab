"""`hplb profiles import`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiles.model import ModelProfile
from tests.profiles.cli.command import hplb, refused
from tests.profiles.published import OF_KIND, published


def rules_file(folder: Path, name: str = "Llama-3.2-1B.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"alphas": [[64] * 32] * 16, "betas": [[0.5] * 32] * 16}))
    return path


@pytest.mark.parametrize(
    ("kind", "form", "selection"),
    [
        ("minference", "budgets", "vertical_slash"),
        ("moa", "rules", "sink_local"),
        ("duo-attention", "rules", "sink_local"),
        ("tangram", "samples", "pooled"),
    ],
)
def test_published_files_are_imported_and_shown(
    tmp_path: Path, kind: str, form: str, selection: str
) -> None:
    source, out = published(kind, OF_KIND[kind]), tmp_path / "out.json"
    result = hplb("import", kind, source, "--name", "mine", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert ModelProfile.load(out).heads.form == form
    shown = json.loads(hplb("show", out, "--json").stdout)
    assert (shown["name"], shown["form"], shown["synthetic"]) == ("mine", form, False)
    assert shown["selection"]["kind"] == selection
    assert source.name in shown["source"]
    assert len(shown["layers"]) == shown["architecture"]["layers"]


def test_strided_parameters_are_imported(tmp_path: Path) -> None:
    source, out = tmp_path / "pattern.json", tmp_path / "out.json"
    source.write_text('{"num_heads": 32, "local_blocks": 32, "vert_stride": 8}')
    result = hplb("import", "s2", source, "--name", "s2", "-o", out, "--model", "llama 2 7b")
    assert result.exit_code == 0, result.stderr
    assert ModelProfile.load(out).heads.shape() == (32, 32)
    chosen = "strided (block_tokens 64, local_blocks 32, vert_stride 8, dense_kv_heads 0)"
    assert f"selection: {chosen}" in " ".join(hplb("show", out).stdout.split())


@pytest.mark.parametrize("kind", ["headkv", "retrieval-head"])
def test_scores_take_a_capacity_and_a_beta(tmp_path: Path, kind: str) -> None:
    source, out = tmp_path / "Llama-3.2-1B.json", tmp_path / "out.json"
    scores = {f"{layer}-{head}": [head, 0] for layer in range(16) for head in range(32)}
    source.write_text(json.dumps(scores))
    arguments: list[Any] = ["import", kind, source, "--name", "x", "-o", out]
    assert hplb(*arguments, "--capacity-tokens", "128").exit_code == 2
    result = hplb(*arguments, "--capacity-tokens", "128", "--beta", "1.5", "--window-tokens", "16")
    assert result.exit_code == 0, result.stderr
    assert np.mean(json.loads(out.read_text())["heads"]["tokens"]) == pytest.approx(128, abs=1)


def test_classes_are_imported_and_latent_attention_is_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "Llama-3.2-1B.json", tmp_path / "out.json"
    source.write_text(
        json.dumps(
            {
                "kv_head_classification": [["local", "global"] * 4] * 16,
                "kv_head_max_distance": [[4096, 0] * 4] * 16,
            }
        )
    )
    arguments: list[Any] = ["import", "redknot", source, "--name", "x", "-o", out]
    result = hplb(*arguments)
    assert result.exit_code == 0, result.stderr
    assert np.mean(json.loads(out.read_text())["heads"]["beta"]) == 0.5
    source.write_text('{"mla_head_classification": [["dense"]]}')
    assert "multi-head latent attention (MLA)" in refused(hplb(*arguments))


def test_config_json_gives_the_architecture(tmp_path: Path) -> None:
    source, config, out = rules_file(tmp_path), tmp_path / "config.json", tmp_path / "out.json"
    fields = {"num_hidden_layers": 16, "num_attention_heads": 32, "hidden_size": 4096}
    config.write_text(json.dumps(fields))
    result = hplb("import", "moa", source, "--name", "x", "-o", out, "--config", config)
    assert result.exit_code == 0, result.stderr
    assert ModelProfile.load(out).architecture.kv_heads == 32


def test_duo_attention_takes_its_options(tmp_path: Path) -> None:
    source, out = tmp_path / "Llama-3.2-1B.tsv", tmp_path / "out.json"
    source.write_text("\n".join(["\t".join(["0.9", "0.4"] * 4)] * 16))
    arguments: list[Any] = ["import", "duo-attention", source, "--name", "x", "-o", out]
    result = hplb(*arguments, "--threshold", "0.5", "--sink-tokens", "64", "--recent-tokens", "100")
    assert result.exit_code == 0, result.stderr
    heads = json.loads(out.read_text())["heads"]
    assert np.mean(heads["beta"]) == 0.5
    assert np.max(heads["alpha_tokens"]) == 164
    assert "not both" in refused(hplb(*arguments, "--threshold", "0.5", "--full-share", "0.5"))


def test_an_existing_profile_is_replaced_only_by_a_good_one(tmp_path: Path) -> None:
    source, out = rules_file(tmp_path), tmp_path / "out.json"
    hplb("import", "moa", source, "--name", "first", "-o", out)
    source.write_text("{")
    refused(hplb("import", "moa", source, "--name", "second", "-o", out))
    assert ModelProfile.load(out).name == "first"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "Llama-9"], "unknown model 'Llama-9': known are"),
        (["--model", "Yi-9B"], "16 layers x 32 query heads, but the architecture has 48 x 32"),
        (["--model", "Yi-9B", "--config", "config.json"], "give one of the two, not both"),
        (["--config", "absent.json"], "absent.json: cannot be read"),
        (["--name", "no/name"], "name: "),
        (["-o", "/absent/out.json"], "/absent/out.json: cannot be written"),
    ],
)
def test_bad_imports(tmp_path: Path, options: list[str], message: str) -> None:
    source, out = rules_file(tmp_path), tmp_path / "out.json"
    result = hplb("import", "moa", source, "--name", "x", "-o", out, *options)
    assert message in refused(result)
    assert not out.exists()


def test_an_unrecognised_file_asks_for_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    source = rules_file(folder, "rules.json")
    result = hplb("import", "moa", source, "--name", "x", "-o", tmp_path / "out.json")
    assert "--model NAME or --config config.json" in refused(result)
