"""`hplb evaluate` from end to end on a tiny model: results, resuming, and what it refuses."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from executor.cli.evaluate import app
from executor.evaluation import density
from executor.evaluation.journal import Journal, Row
from executor.evaluation.methods import METHODS
from profiles.cli import progress
from profiles.selection import POOLED, Sampled, Selection, SinkLocal, VerticalSlash
from tests.executor.evaluation.builders import HEADS, LAYERS, save_tiny, tiny_profile

TASKS = "niah_single_1,niah_multikey_2"


@pytest.fixture(autouse=True)
def _no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules without a search that the clock ends: budgets are the same in every run."""
    monkeypatch.setattr(density, "SEARCH_S", 0.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Model, profile and a text."""
    folder = tmp_path_factory.mktemp("tiny")
    text = folder / "text.txt"
    text.write_text("the grass is green . Ann works with the sky . " * 40)
    return (*save_tiny(folder), text)


def run(saved: tuple[Path, Path, Path], out: Path, *more: str) -> Result:
    model, profile, text = saved
    arguments = ["evaluate", "--model", str(model), "--profile", str(profile)]
    arguments += ["--text", str(text)]
    arguments += ["--out", str(out), "--contexts", "128", "--densities", "0.5"]
    arguments += ["--block-tokens", "16", "--samples", "2", "--tasks", TASKS, *more]
    return CliRunner().invoke(app, arguments)


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_lists_of_small_pieces(saved: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    names = ("--methods", "uniform,max_min,streaming_llm")
    sizes = ("--block-tokens", "32", "--piece-tokens", "16", "--floor-tokens", "32")
    sizes += ("--densities", "0.8")
    ran = run(saved, out, *names, *sizes)
    assert ran.exit_code == 0, ran.output
    found = results(out)
    assert found["piece_tokens"] == 16
    budgets = {row["method"]: row["tokens"] for row in found["methods"]}
    assert {tokens % 32 for layer in budgets["max_min"] for tokens in layer} == {0, 16}
    by_method = {line["method"]: line["computed"] for line in found["lines"]}
    assert by_method["streaming_llm"] == by_method["uniform"] <= 0.8
    assert by_method["max_min"] <= by_method["uniform"]


def test_all_methods_side_by_side(saved: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out, plot = tmp_path / "r.json", tmp_path / "f.png"
    ran = run(saved, out, "--plot", str(plot), "--generate", "1", "--gpus", "2")
    assert ran.exit_code == 0, ran.output
    for word in (*METHODS, "NS1", "MK2", "average", "perplexity"):
        assert word in ran.output
    found = results(out)
    assert [line["method"] for line in found["lines"]] == list(METHODS)
    assert len(found["rows"]) == len(METHODS) * (2 * 2 + 2)
    assert b"makespans predicted on 2 x h200" in plot.read_bytes()
    seeds = {row["seed"] for row in found["rows"] if row["task"] != "text"}
    assert seeds == {1_000_000, 1_000_001}
    by_method = {line["method"]: line for line in found["lines"]}
    uniform = by_method["uniform"]["computed"]
    assert by_method["dense"]["computed"] == 1.0
    for name in ("streaming_llm", "moa", "shifting", "max_min", "max_min_model", "least_error"):
        assert by_method[name]["computed"] <= uniform + 1e-12 <= 0.5 + 1e-12, name
    assert by_method["dense"]["to_dense"] is None
    assert by_method["max_min"]["to_reference"] is None
    for line in found["lines"]:
        mean = sum(line["tasks"].values()) / 2
        assert line["average"]["value"] == pytest.approx(mean)
    # Nothing but the samples' own ends goes into an average.
    for task in TASKS.split(","):
        mine = [r["value"] for r in found["rows"] if (r["method"], r["task"]) == ("max_min", task)]
        assert by_method["max_min"]["tasks"][task] == pytest.approx(sum(mine) / 2)
    assert {"python", "torch", "transformers"} <= set(found["versions"])
    assert len(found["weights_sha256"]) == len(found["profile"]["digest"]) == 64
    assert [each["method"] for each in found["generated"]] == list(METHODS)
    dense = found["generated"][0]
    assert dense["samples"] == 2
    assert dense["alike"] == 1.0
    assert not list(tmp_path.glob("*.jsonl"))
    width, height = struct.unpack(">II", plot.read_bytes()[16:24])
    assert width > 600
    assert height > 600


def test_resumed_is_equal_to_uninterrupted(
    saved: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--methods", "uniform,top_p,moa", "--json")
    whole = run(saved, tmp_path / "whole.json", *asked)
    assert whole.exit_code == 0, whole.output
    add, added = Journal.add, []

    def add_or_stop(journal: Journal[Row], row: Row) -> None:
        if len(added) == 7:
            raise KeyboardInterrupt
        added.append(row)
        add(journal, row)

    out = tmp_path / "resumed.json"
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "add", add_or_stop)
        assert run(saved, out, *asked).exit_code != 0
    assert not out.exists()
    assert len((tmp_path / "resumed.json.rows.jsonl").read_text().splitlines()) == 8
    with monkeypatch.context() as patched:
        later: list[Row] = []
        patched.setattr(Journal, "add", lambda j, row: (later.append(row), add(j, row))[1])
        again = run(saved, out, *asked)
    assert again.exit_code == 0, again.output
    first, second = results(tmp_path / "whole.json"), results(out)
    assert len(later) == len(second["rows"]) - 7
    assert first["rows"] == second["rows"]
    assert first["lines"] == second["lines"]
    assert json.loads(again.stdout) == second


def test_documents_of_a_folder_one_sample_and_the_dtype(
    saved: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(f"{name} is green . Ann works with the sky . " * 40)
    asked = ("--text", str(folder), "--methods", "uniform", "--dtype", "bfloat16")
    plot = tmp_path / "f.png"
    ran = run(saved, tmp_path / "r.json", *asked, "--samples", "1", "--plot", str(plot))
    assert ran.exit_code == 0, ran.output
    found = results(tmp_path / "r.json")
    assert found["dtype"] == "bfloat16"
    assert [line["average"]["low"] for line in found["lines"]] == [None, None]
    assert "±" not in ran.stdout
    told = [line for line in ran.stderr.splitlines() if not line.startswith("note: ")]
    assert told[0].startswith("0/6 128 tokens, calibrating, ")
    assert told[-1].startswith("6/6 done, 0:")
    [text] = [line for line in told if line.startswith("5/6 ")]
    assert re.match(r"5/6 128 tokens, text, about [\d:]+ left, [\d:]+ so far", text)


@pytest.mark.parametrize(
    ("own", "asked", "chosen"),
    [
        (POOLED, None, POOLED),
        (VerticalSlash(), None, VerticalSlash()),
        (Sampled(rows=5), None, Sampled(rows=5)),
        (Sampled(rows=5), "sampled", Sampled(rows=5)),
        (Sampled(rows=5), "pooled", POOLED),
        (SinkLocal(sink_tokens=16), None, Sampled()),
        (POOLED, "sampled", Sampled()),
    ],
    ids=repr,
)
def test_blocks_are_chosen_as_asked_or_as_the_profile_was_measured(
    saved: tuple[Path, Path, Path],
    tmp_path: Path,
    own: Selection,
    asked: str | None,
    chosen: Selection,
) -> None:
    model, _, text = saved
    profile = tmp_path / "profile.json"
    tiny_profile(selection=own.model_dump()).save(profile)
    more = ["--methods", "dense"] + (["--selection", asked] if asked else [])
    ran = run((model, profile, text), tmp_path / "r.json", *more)
    assert ran.exit_code == 0, ran.output
    assert results(tmp_path / "r.json")["options"]["selection"] == chosen.model_dump()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--methods", "best"), "--methods: 'best' is unknown; known are dense, streaming_llm"),
        (("--tasks", "niah"), "--tasks: 'niah' is unknown; known are niah_single_1"),
        (("--contexts", "64"), "--contexts: 64 tokens are too few for a task: 96 at least"),
        (("--contexts", "512"), "512 tokens are beyond the model's 256 positions"),
        (("--contexts", "many"), "contexts: 'many' is not a list of whole numbers"),
        (("--densities", "0"), "--densities: 0.0 must be above 0 and at most 1"),
        (("--densities", "nan"), "--densities: nan must be above 0"),
        (("--densities", "1.5"), "--densities: 1.5 must be above 0 and at most 1"),
        (("--densities", "half"), "--densities: 'half' is not a list of shares"),
        (("--densities", "0.01"), "--densities: 0"),
        (("--samples", "0"), "--samples: 0 must be from 1"),
        (("--generate", "3"), "--generate: 3 must be from 0 to --samples"),
        (("--block-tokens", "48"), "--block-tokens: 48 must be one of 16, 32, 64, 128"),
        (("--piece-tokens", "48"), "--piece-tokens: 48 must be one of 16, 32, 64, 128"),
        (("--piece-tokens", "32"), "--piece-tokens: "),
        (
            ("--selection", "random"),
            "--selection: 'random' must be one of sampled, pooled, vertical",
        ),
        (("--curve", "mine"), "--curve: 'mine' must be selected or oracle"),
        (("--curve", "selected", "--methods", "max_min"), "has no selected_recovery"),
        (("--text", "/no/such/file"), "--text /no/such/file: cannot be read"),
        (("--dtype", "int4"), "--dtype: 'int4' is not one of"),
        (
            ("--model", "smollm2-135m"),
            "--model smollm2-135m: is not on this machine: hplb models get",
        ),
        (("--model", "/no/such/model"), "--model /no/such/model: no such folder"),
        (("--profile", "llama-3.1-8b-synthetic"), "layers is 32, but the model has 2"),
        (("--device-type", "abacus", "--methods", "uniform"), "abacus"),
        (("--out", "/no/such/folder/r.json"), "its folder does not exist"),
        (("--out", "/"), "--out /: is a folder; name a file in it"),
        (("--plot", "/"), "--plot /: is a folder; name a file in it"),
    ],
)
def test_what_is_wrong_is_said(
    saved: tuple[Path, Path, Path],
    tmp_path: Path,
    more: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HPLB_CACHE", str(tmp_path / "cache"))
    ran = run(saved, tmp_path / "r.json", *more)
    assert ran.exit_code == 2, ran.output
    assert message in ran.stderr
    assert ran.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "r.json").exists()


def test_a_profile_without_curves_leaves_methods_out(
    saved: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    lacking = tmp_path / "budgets.json"
    heads = {"form": "budgets", "tokens": [[64.0] * HEADS] * LAYERS}
    tiny_profile(heads=heads).save(lacking)
    refused = run(saved, tmp_path / "r.json", "--profile", str(lacking), "--methods", "max_min")
    assert refused.exit_code == 2
    assert "--methods: max_min: needs recovery curves" in refused.stderr
    ran = run(saved, tmp_path / "r.json", "--profile", str(lacking), "--samples", "1")
    assert ran.exit_code == 0, ran.output
    assert "bubble_filled is left out" in " ".join(ran.output.split())
    assert [line["method"] for line in results(tmp_path / "r.json")["lines"]] == [
        "dense",
        "streaming_llm",
        "uniform",
        "top_p",
        "top_p_pooled",
        "top_p_oracle",
        "xattention",
    ]
