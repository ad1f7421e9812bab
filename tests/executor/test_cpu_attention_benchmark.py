"""The CPU attention benchmark on tiny shapes, so that it does not rot."""

import json
import sys

import pytest
import torch

from benchmarks import cpu_attention
from executor.attention.backends import DENSE_FROM


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_benchmark_runs(tmp_path, monkeypatch, capsys):
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["cpu_attention.py", "--quick", "--json", str(report)])
    before = torch.get_num_threads()
    cpu_attention.main()
    assert torch.get_num_threads() == before
    assert len(json.loads(report.read_text())["rows"]) == capsys.readouterr().out.count("SDPA")


def test_it_says_what_selection_and_attention_take_of_dense(tmp_path, monkeypatch, capsys):
    report = tmp_path / "report.json"
    command = ["cpu_attention.py", "--selected", "--quick", "--json", str(report)]
    monkeypatch.setattr(sys, "argv", command)
    cpu_attention.main()
    rows = json.loads(report.read_text())["rows"]
    wanted = 2 * (len(cpu_attention.AIMS) + len(cpu_attention.GATHERED))
    assert len(rows) == capsys.readouterr().out.count("of SDPA") == wanted
    for row in rows:
        assert row["by_sampled_rows"].keys() == {"2", "8"}
        for found in row["by_sampled_rows"].values():
            assert found["whole"]["least"] > found["selection"]["least"] > 0
            assert ("met" in found) == bool(row["aim"])
        asked = row["case"].removesuffix(", gathered").split()[-1]
        assert row["density"] >= float(asked.rstrip("%")) / 100
        dense = row["aim"] and row["density"] >= DENSE_FROM["torch"]
        assert row["computed"] == pytest.approx(1.0 if dense else row["density"])
