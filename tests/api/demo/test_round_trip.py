"""The main job with real processes, small: it goes round the loop, and Ctrl-C leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli import app
from tests.forked import Forked, forked
from tests.solver.profiles import budgets_profile

pytest.importorskip("torch", reason="executors need torch")

from tests.profiles.measuring import tiny

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "profile.json"
    budgets_profile(layers=3, heads=8, kv_heads=4).save(path)
    return str(path)


def demo(profile: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "api.main", "demo", "--profile", profile, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Its temporary folder lies in ours, so that what it leaves behind is seen.
        env={**os.environ, "TMPDIR": str(folder)},
        cwd=ROOT,
    )


def forked_child(command: list[str], **options: Any) -> Forked:
    """What `Children` starts, forked from a process that has loaded torch."""
    assert command[:3] == [sys.executable, "-m", "api.main"]
    log = options["stdout"].fileno()
    return Forked(
        command[3:], folder=options["cwd"], environment=options["env"], stdout=log, stderr=log
    )


@pytest.mark.slow
def test_the_loop_goes_round_once(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a model's activations; paths are from the folder it is called in, not the executors'."""
    shape = {"num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 4}
    tiny.model(tmp_path / "model", head_dim=64, hidden_size=512, **shape)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text(tiny.text(1100, 0))
    folder = tmp_path / "tmp"
    folder.mkdir()
    asked = ["--model", "model", "--data", "texts", "--context", "1024", "--json"]
    asked += ["--layers", "2", "--rounds", "2"]
    # Before the temporary folder is the demo's: it has one too.
    forked()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr("api.server.stop_on_terminate", lambda: None)
    monkeypatch.setattr(subprocess, "Popen", forked_child)
    ended = CliRunner().invoke(app, ["demo", "--profile", Path(profile).name, *asked])
    assert ended.exit_code == 0, ended.stderr
    found = json.loads(ended.stdout)
    # The profile was never measured on it.
    assert found["own_weights"] is False
    assert "was not measured on the weights" in ended.stderr
    rows = {row["name"]: row for row in found["generations"]}
    assert list(rows) == ["dense", "contiguous", "greedy", "exact", "divided", "refitted"]
    assert rows["exact"]["method"] == "cp_sat"
    assert rows["refitted"]["method"] == rows["divided"]["method"] == "divided"
    assert (found["context_tokens"], found["devices"], len(found["layers"])) == (1024, 4, 2)
    numbers = [number for row in rows.values() for number in row["generations"]]
    assert len(set(numbers)) == len(numbers) == 6 * found["rounds"]
    # In turn: of every two a generation's rounds have one of each other between them.
    assert all(np.diff(row["generations"]).tolist() == [6] for row in rows.values())
    for row in rows.values():
        assert row["measured_s"] > 0
        assert row["predicted_s"] > 0
        assert row["spread_s"] >= 0
        assert 0 <= row["bubble_measured"] < 1
        assert row["loss"] is not None
    assert rows["dense"]["density"] == 1 > rows["divided"]["density"]
    base, last = rows["contiguous"], rows["refitted"]
    assert last["refitted_s"] == pytest.approx(last["predicted_s"])
    assert found["gain_measured"] == pytest.approx(1 - last["measured_s"] / base["measured_s"])
    assert found["gain_predicted"] == pytest.approx(1 - last["expected_s"] / base["expected_s"])
    # What rates are wrong by makes waits, and more where loads are level.
    assert found["rates_error"] > 0
    assert last["expected_s"] > last["refitted_s"]
    assert found["gain_interval"] is None or found["gain_interval"][0] < found["gain_interval"][1]
    # The data sheet's peak is several times what a core reaches: refitting must show.
    assert found["error_after"] == last["load_error"] < found["error_before"]
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_ctrl_c_ends_every_process_and_leaves_no_folder(profile: str, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    process = demo(profile, folder, "--context", "1024", "--layers", "1")
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and len(_logs(folder)) < 3:
        time.sleep(0.1)
    assert len(_logs(folder)) == 3
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []
    assert _running(str(folder)) == []


def _logs(folder: Path) -> list[Path]:
    return list(folder.glob("hplb-demo-*/*.log"))


def _running(marker: str) -> list[int]:
    """Processes with `marker` on their command line or as their working folder's parent."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
