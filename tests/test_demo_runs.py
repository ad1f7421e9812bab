"""The summary of the demo's runs: what an aim is, and how many runs meet it."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import demo_runs

GOOD = {
    "model": "m",
    "context_tokens": 4096,
    "error_before": 0.9,
    "error_after": 0.04,
    "gain_predicted": 0.18,
    "gain_measured": 0.14,
    "gain_interval": [0.06, 0.2],
}


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({}, []),
        ({"error_after": 0.11}, ["error"]),
        ({"gain_measured": 0.12}, ["prediction"]),
        ({"gain_measured": 0.24}, ["prediction"]),
        ({"gain_interval": [-0.01, 0.2]}, ["significant"]),
        ({"gain_interval": None}, ["significant"]),
    ],
)
def test_what_misses_an_aim(changed: dict[str, object], missed: list[str]) -> None:
    assert [aim for aim, yes in demo_runs.met({**GOOD, **changed}).items() if not yes] == missed


def test_runs_that_are_kept_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run_01.json").write_text(json.dumps(GOOD))
    ran: list[list[str]] = []

    def run(flags: list[str]) -> demo_runs.Run:
        ran.append(flags)
        return {**GOOD, "error_after": 0.2}

    monkeypatch.setattr(demo_runs, "demo", run)
    out = tmp_path / "out.json"
    asked = ["--runs", "2", "--keep", str(tmp_path), "--flags", "--rounds 8", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["demo_runs", *asked])
    demo_runs.main()
    assert ran == [["--rounds", "8"]]
    assert json.loads((tmp_path / "run_02.json").read_text())["error_after"] == 0.2
    found = json.loads(out.read_text())
    assert found["summary"]["met"] == {"error": 1, "prediction": 2, "significant": 2}
    assert (found["summary"]["runs"], found["summary"]["met_all"]) == (2, 1)
    assert found["summary"]["medians"]["error_after"] == pytest.approx(0.12)
    assert [row["error_after"] for row in found["rows"]] == [0.04, 0.2]
