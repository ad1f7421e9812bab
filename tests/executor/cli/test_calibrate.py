"""`hplb calibrate` from end to end on a tiny model, and what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from executor.cli.evaluate import app
from profiles.cli import progress
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from solver import plan
from tests.executor.evaluation.builders import save_tiny, save_words, tiny_profile

Saved = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Model, profile and prompts."""
    folder = tmp_path_factory.mktemp("tiny")
    return (*save_tiny(folder), save_words(folder / "text.txt"))


def run(saved: Saved, out: Path, *more: str) -> Result:
    model, profile, data = saved
    asked = ["calibrate", "--model", str(model), "-p", str(profile), "--data", str(data)]
    return CliRunner().invoke(app, [*asked, "-o", str(out), "--densities", "0.5,0.75", *more])


def test_a_calibrated_profile_promises(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    out = tmp_path / "profile.json"
    ran = run(saved, out, "--windows", "3")
    assert ran.exit_code == 0, ran.output
    *points, said = ran.stdout.splitlines()
    assert len(points) == 2
    assert re.match(
        r"density 0.5: summed error \S+, loss [+-]\S+ nats a token, \S+ per er", points[0]
    )
    assert said.endswith(", 3 prompts of 256 tokens")
    first, second, *_, last = ran.stderr.splitlines()
    assert first.startswith("0/9 window 1 of 3, ")
    assert re.match(r"1/9 window 1 of 3, about [\d:]+ left, [\d:]+ so far", second)
    assert last.startswith("9/9 done, ")
    before, after = tiny_profile(), ModelProfile.load(out)
    assert isinstance(after.heads, CurvesForm)
    assert after.heads.loss_per_error is not None
    assert after.heads.model_copy(update={"loss_per_error": None}) == before.heads
    made = plan(after, gpus=2, context_tokens=256, policy="least_error", loss=0.1, floor_tokens=64)
    assert made.loss is not None
    assert made.loss.nats <= made.loss.high <= 0.1
    # Calibrated again in its own place, the figures in JSON.
    again = run((saved[0], out, saved[2]), out, "--windows", "3", "--json")
    figures: dict[str, Any] = json.loads(again.stdout)
    assert figures["loss_per_error"] == after.heads.loss_per_error.model_dump()
    assert [point["density"] for point in figures["points"]] == [0.5, 0.75]
    assert ModelProfile.load(out) == after


def test_what_is_refused(saved: Saved, tmp_path: Path) -> None:
    def refused(given: Saved, out: Path, *more: str) -> str:
        ran = run(given, out, *more)
        assert ran.exit_code == 2
        [line] = ran.stderr.splitlines()
        return line

    model, profile, data = saved
    bare = tmp_path / "bare.json"
    tiny_profile(errors=False).save(bare)
    assert "'tiny' has no output errors" in refused((model, bare, data), tmp_path / "p.json")
    assert "is a folder" in refused(saved, tmp_path)
    assert "its folder does not exist" in refused(saved, tmp_path / "none" / "p.json")
    assert "--densities: 'x'" in refused(saved, tmp_path / "p.json", "--densities", "x")
    assert "--context: 512" in refused(saved, tmp_path / "p.json", "--context", "512")
    assert "--data" in refused((model, profile, tmp_path / "none"), tmp_path / "p.json")
    assert not (tmp_path / "p.json").exists()
