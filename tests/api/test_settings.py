"""Settings that contradict each other."""

import json

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from api.cli import app
from api.settings import Settings, told_settings


def test_more_rounds_than_the_window_holds_are_never_there() -> None:
    with pytest.raises(ValidationError, match=r"drift_min_rounds: 5 rounds never fit .* \(4\)"):
        Settings(drift_window=4, drift_min_rounds=5)
    assert Settings(drift_window=4, drift_min_rounds=4).drift.window == 4


def test_every_setting_says_what_it_is() -> None:
    told = told_settings()
    assert {each.variable for each in told} == {f"HPLB_{n.upper()}" for n in Settings.model_fields}
    for each in told:
        assert each.meaning, f"{each.variable}: has no docstring in api/settings.py"
    by_name = {each.variable: each for each in told}
    lease = by_name["HPLB_LEASE_S"]
    assert (lease.kind, lease.default) == ("number > 0, <= 3600", "15.0")


def test_the_program_prints_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPLB_API_KEY", "not-to-be-shown")
    said = CliRunner().invoke(app, ["settings"])
    assert said.exit_code == 0
    assert "HPLB_SOLVER_WORKERS (whole number >= 1, <= 64; 2)" in said.output
    assert "not-to-be-shown" not in said.output
    as_json = json.loads(CliRunner().invoke(app, ["settings", "--json"]).output)
    assert [each["variable"] for each in as_json] == [each.variable for each in told_settings()]
