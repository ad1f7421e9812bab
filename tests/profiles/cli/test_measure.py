"""`hplb profiles measure`, in this process."""

import json
import re
from pathlib import Path

import pytest

from profiles.cli import progress
from profiles.model import ModelProfile
from profiles.selection import SAMPLED, Sampled, SinkLocal
from tests.profiles.cli.command import hplb, refused
from tests.profiles.measuring import tiny
from tests.profiles.published import case


@pytest.fixture
def options(tmp_path: Path) -> list[object]:
    data = tiny.prompts(tmp_path / "data.jsonl", {"one": [80]})
    model = tiny.model(tmp_path / "llama")
    out = tmp_path / "p.json"
    return ["--model", model, "--data", data, "--block-tokens", 16, "--rows", 8, "-o", out]


def test_a_profile_is_written(options: list[object], tmp_path: Path) -> None:
    sink = ["--selection", "sink_local", "--sink-tokens", 32, "--local-tokens", 32]
    result = hplb("measure", *options, "--contexts", "64", *sink, "--name", "mine")
    assert result.exit_code == 0, result.stderr
    assert "mine, 2 layers x 4 heads, 1 prompts in" in result.stdout
    profile = ModelProfile.load(tmp_path / "p.json")
    assert profile.selection == SinkLocal(sink_tokens=32)
    assert profile.measurement is not None
    assert (profile.measurement.sink_tokens, profile.measurement.local_tokens) == (32, 32)
    assert profile.heads.selected_recovery is not None
    assert not (tmp_path / "p.json.parts").exists()


@pytest.mark.parametrize(("more", "rows"), [([], SAMPLED.rows), (["--sample-rows", 5], 5)])
def test_blocks_are_chosen_by_sampled_rows(
    options: list[object], tmp_path: Path, more: list[object], rows: int
) -> None:
    result = hplb("measure", *options, "--contexts", "64", *more)
    assert result.exit_code == 0, result.stderr
    assert ModelProfile.load(tmp_path / "p.json").selection == Sampled(rows=rows)


def test_pieces_of_a_block_are_stated(
    options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiles.measuring.selector.installed_selector", lambda: None)
    sizes = ["--block-tokens", 32, "--piece-tokens", 16, "--selection", "sink_local"]
    result = hplb("measure", *options, *sizes, "--contexts", "64")
    assert result.exit_code == 0, result.stderr
    profile = ModelProfile.load(tmp_path / "p.json")
    assert "no executor is installed: selected_recovery is left out\n" in result.stderr
    assert profile.heads.budget_tokens == [[32, 48, 64]]
    assert profile.selection == SinkLocal(sink_tokens=16)
    measurement = json.loads((tmp_path / "p.json").read_text())["measurement"]
    assert (measurement["block_tokens"], measurement["piece_tokens"]) == (32, 16)
    assert (measurement["sink_tokens"], measurement["local_tokens"]) == (16, 32)
    assert "blocks of 32 tokens over pieces of 16" in hplb("show", tmp_path / "p.json").stdout


def test_a_folder_of_texts_is_measured_on_so_many_threads(
    options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    asked: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    for name in ("prose/a.txt", "prose/b.txt", "code/c.py"):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(tiny.text(80, len(name)))
    more = ["--data", tmp_path / "texts", "--threads", 2]
    result = hplb("measure", *options, "--contexts", "64", *more)
    assert result.exit_code == 0, result.stderr
    assert asked == [2]
    measured = ModelProfile.load(tmp_path / "p.json").measurement
    assert measured is not None
    assert measured.prompts == {"code": 1, "prose": 2}
    told = result.stderr.splitlines()
    assert told[0].startswith("0/6 layers code, 64 tokens, 0:")
    assert re.fullmatch(r"1/6 layers code, 64 tokens, about [\d:]+ left, [\d:]+ so far", told[1])
    assert told[-1].startswith("6/6 layers done, 0:")


@pytest.mark.parametrize("more", [[], ["--gradients"]])
def test_json_alone_on_stdout(options: list[object], more: list[str]) -> None:
    result = hplb("measure", *options, "--contexts", "32,64", *more, "--json")
    heads = json.loads(result.stdout)["heads"]
    assert heads["context_tokens"] == [32, 64]
    assert "output_error" in heads
    assert ("gradient_error" in heads) == bool(more)


def test_texts_on_which_lists_hold_next_to_nothing(tmp_path: Path) -> None:
    """Of the reference model, whose attention goes to a word or two."""
    out = tmp_path / "p.json"
    data = case("line-separators.jsonl")
    options = ["--model", "reference", "--data", data, "--contexts", "256", "-o", out]
    result = hplb("measure", *options)
    assert result.exit_code == 0, result.stderr
    measured = ModelProfile.load(out).measurement
    assert measured is not None
    assert measured.prompts == {"text": 4}


def test_gradients_without_an_executor_are_refused(
    options: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiles.measuring.selector.installed_selector", lambda: None)
    ran = hplb("measure", *options, "--contexts", "64", "--gradients")
    assert "gradients: no executor is installed" in refused(ran)


def test_what_is_kept_after_an_interruption(
    options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    state = tmp_path / "elsewhere"
    monkeypatch.setattr("profiles.measuring.run.curves_form", interrupted)
    result = hplb("measure", *options, "--contexts", "64", "--state-dir", state)
    assert result.exit_code != 0
    assert "the same command goes on from here" in result.stderr
    assert (state / "64-0.npz").exists()
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--contexts", "1k"], "--contexts: '1k' is not a list of whole numbers"),
        (["--contexts", "64", "--selection", "best"], "selection: 'best' is not one of"),
        (["--contexts", "64", "--sample-rows", "0"], "--sample-rows: 0 must be from 1 to 16"),
        (["--contexts", "64", "--sample-rows", "17"], "--sample-rows: 17 must be from 1 to 16"),
        (
            ["--contexts", "64", "--selection", "pooled", "--sample-rows", "2"],
            "--sample-rows: --selection pooled samples none",
        ),
        (["--contexts", "64", "--block-tokens", "20"], "block_tokens: 20"),
        (["--contexts", "64", "--piece-tokens", "32"], "piece_tokens: 32 does not divide"),
        (["--contexts", "64", "--piece-tokens", "0"], "piece_tokens: 0 is not one of 16"),
        (
            ["--contexts", "64", "-o", "/no/such/p.json"],
            "/no/such/p.json: cannot be written",
        ),
        (["--contexts", "64", "-o", "/"], "--out /: is a folder"),
        (["--contexts", "64", "--name", "my model"], "name: 'my model' must be letters, digits"),
        (["--contexts", "64", "--data", "/no/data"], "/no/data: cannot be read"),
    ],
)
def test_bad_options(options: list[object], more: list[str], message: str) -> None:
    assert message in refused(hplb("measure", *options, *more))


def test_without_torch(options: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiles.measuring.find_spec", lambda _: None)
    assert "pip install hplb[executor]" in refused(hplb("measure", *options, "--contexts", "64"))
