"""Resuming, seeds and the figures over prompts."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from executor.attention.select import select_for_budgets
from profiles.cli import app
from profiles.errors import MeasuringError
from profiles.measuring.choices import Choices
from profiles.measuring.layer_attention import LayerAttention
from profiles.measuring.parts import Parts
from profiles.measuring.run import measure_profile, name_of
from profiles.model import ModelProfile
from profiles.selection import VerticalSlash

from . import tiny


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Choices:
    folder = tmp_path_factory.mktemp("run")
    data = tiny.prompts(folder / "data.jsonl", {"one": [80, 64], "two": [70]})
    model = tiny.model(folder / "llama")
    return Choices(str(model), data, (32, 64), block_tokens=16, rows=8)


def run(choices: Choices, state: Path, stop_after: int | None = None) -> ModelProfile:
    def progress(done: int, _total: int, _what: str) -> None:
        if stop_after is not None and done > stop_after * tiny.SHAPE["num_hidden_layers"]:
            raise KeyboardInterrupt

    return measure_profile(choices, "m", Parts(state), select_for_budgets, progress)


def figures(profile: ModelProfile) -> dict:
    found = profile.model_dump(mode="json")
    del found["measurement"]["seconds"]
    return found


def test_time_left_is_known_after_a_layer_and_counts_backward_passes(
    choices: Choices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three prompts at each context, of two layers, each of which takes a second either way."""
    clock = count()
    monkeypatch.setattr(
        "profiles.measuring.layer_progress.perf_counter", lambda: float(next(clock))
    )
    told: list[tuple[int, int, str]] = []
    measure_profile(
        replace(choices, gradients=True),
        "m",
        Parts(tmp_path),
        select_for_budgets,
        lambda *each: told.append(each),
    )
    # At a width of 32; the shorter context has three passes.
    shorter, longer = 3 * 32 * (12 * 32 + 32), 64 * (12 * 32 + 64)
    left = [(3 * shorter + 3 * longer) / (shorter / 6) - 1]
    left.append(2 * ((3 * shorter + 3 * longer) / (shorter / 3) - 1))
    words = [f"one, 32 tokens, about {timedelta(seconds=round(each))} left" for each in left]
    assert told[:3] == [(0, 12, "one, 32 tokens"), (0, 12, words[0]), (1, 12, words[1])]
    # Three forward and backward, and three forward alone, each told once more as it begins;
    # the last layer's end is the end.
    assert len(told) == 3 * (1 + 4) + 3 * (1 + 2)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-2][:2] == (11, 12)
    assert told[-1] == (12, 12, "done")


def test_an_interrupted_run_goes_on_to_equal_figures(choices: Choices, tmp_path: Path) -> None:
    whole = run(choices, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(choices, tmp_path / "state", stop_after=2)
    parts = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "state").glob("*.npz")}
    assert len(parts) == 2
    again = run(choices, tmp_path / "state")
    assert figures(again) == figures(whole)
    for name, changed in parts.items():
        assert (tmp_path / "state" / name).stat().st_mtime_ns == changed


def test_a_broken_part_is_measured_again(choices: Choices, tmp_path: Path) -> None:
    whole = run(choices, tmp_path)
    part = sorted(tmp_path.glob("*.npz"))[0]
    part.write_bytes(part.read_bytes()[:100])
    assert figures(run(choices, tmp_path)) == figures(whole)


def test_what_is_not_finite_is_refused_and_not_kept(
    choices: Choices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflown(call: LayerAttention, *_: object) -> torch.Tensor:
        errors = torch.zeros(4, 2)
        errors[2, 1] = torch.nan if call.layer == 1 else 0.0
        return errors

    with monkeypatch.context() as patch:
        patch.setattr("profiles.measuring.prompt_run.output_errors", overflown)
        with pytest.raises(MeasuringError, match="layer 1, query heads 2: output_error is not fin"):
            run(choices, tmp_path)
    assert not list(tmp_path.glob("*.npz"))
    assert run(choices, tmp_path).heads.form == "recovery_curves"


def test_parts_of_other_choices_are_refused(choices: Choices, tmp_path: Path) -> None:
    run(choices, tmp_path)
    with pytest.raises(MeasuringError, match=r"\(rows: 8 there, 9 now\).* --state-dir$"):
        run(replace(choices, rows=9), tmp_path)
    with pytest.raises(MeasuringError, match="selection"):
        run(replace(choices, selection=VerticalSlash()), tmp_path)


def test_a_foreign_folder_is_left_alone(choices: Choices, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(MeasuringError, match="no measurement's"):
        run(choices, tmp_path)
    parts = Parts(tmp_path)
    parts.remove()
    assert (tmp_path / "thesis.txt").exists()


def test_seeds_draw_the_rows(choices: Choices, tmp_path: Path) -> None:
    first, second = (run(replace(choices, seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    assert first.heads != second.heads
    assert figures(run(choices, tmp_path / "again")) == figures(first)


def test_spread_needs_several_prompts(choices: Choices, tmp_path: Path) -> None:
    heads = run(replace(choices, prompts=1, contexts=(64,)), tmp_path / "two").heads
    assert heads.spread is not None  # one prompt of each of two tasks
    assert np.array(heads.selected_spread).max() > 0
    data = tiny.prompts(tmp_path / "single.jsonl", {"one": [64]})
    alone = run(replace(choices, data=data, contexts=(64,)), tmp_path / "single")
    assert alone.heads.spread is None
    assert alone.measurement is not None
    assert alone.measurement.stability == []


def test_without_an_executor_selected_recovery_is_left_out(
    choices: Choices, tmp_path: Path
) -> None:
    profile = measure_profile(choices, "m", Parts(tmp_path), None, lambda *_: None)
    assert profile.heads.selected_recovery is None
    assert "selected_recovery" not in profile.model_dump_json()


def test_names(tmp_path: Path) -> None:
    (tmp_path / "My model!").mkdir()
    assert name_of(str(tmp_path / "My model!")) == "My-model-"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_command_goes_on(choices: Choices, tmp_path: Path) -> None:
    """SIGKILL after the first finished prompt; the same command ends as an undisturbed one."""

    def words(out: Path) -> list[str]:
        options = {"--model": choices.model, "--data": choices.data, "--contexts": "32,64"}
        options |= {"--block-tokens": 16, "--rows": 8, "-o": out}
        return ["profiles", "measure", *(str(word) for pair in options.items() for word in pair)]

    out = tmp_path / "killed.json"
    state = tmp_path / "killed.json.parts"
    command = [sys.executable, "-m", "api.main", *words(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not list(state.glob("*.npz")) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    kept = sorted(state.glob("*.npz"))
    assert 1 <= len(kept) < 5
    for path in (out, tmp_path / "whole.json"):
        done = CliRunner().invoke(app, words(path))
        assert done.exit_code == 0, done.stderr
    assert not state.exists()
    killed, whole = (ModelProfile.load(p) for p in (out, tmp_path / "whole.json"))
    assert killed.heads == whole.heads
    assert json.loads(out.read_text())["heads"]["output_error"]
