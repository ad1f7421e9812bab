"""The FlexAttention benchmark on tiny shapes, so that it does not rot."""

import json
import sys

import pytest

from benchmarks import cpu_flex


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_benchmark_runs(tmp_path, monkeypatch, capsys):
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["cpu_flex.py", "--quick", "--json", str(report)])
    cpu_flex.main()
    found = json.loads(report.read_text())
    assert found["log_sum_exp"] == "returned"
    assert len(found["rows"]) == capsys.readouterr().out.count("ours")
