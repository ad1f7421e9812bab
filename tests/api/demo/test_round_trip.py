"""The main job with real processes, small: it goes round the loop, and Ctrl-C leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.solver.profiles import budgets_profile

pytest.importorskip("torch", reason="executors need torch")


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
        cwd=Path(__file__).resolve().parents[3],
    )


@pytest.mark.slow
def test_the_loop_goes_round_once(profile: str, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    process = demo(profile, folder, "--context", "1024", "--layers", "2", "--rounds", "2", "--json")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    result = json.loads(out)
    outcomes = result["outcomes"]
    assert [o["method"] for o in outcomes] == ["contiguous", "greedy", "cp_sat", "refined"]
    generations = [o["generation"] for o in outcomes]
    assert generations == sorted(set(generations))
    for outcome in outcomes:
        assert outcome["measured_s"] > 0
        assert outcome["predicted_s"] > 0
        assert 0 <= outcome["measured_bubble"] < 1
    # The data sheet's peak is several times what a core reaches: refitting must show.
    assert result["error_after"] < result["error_before"]
    assert result["error_after"] == outcomes[-1]["prediction_error"]
    assert result["decision"]
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
