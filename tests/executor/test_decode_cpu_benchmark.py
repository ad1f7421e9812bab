"""The CPU decode benchmark on a tiny model, so that it does not rot."""

import json
import sys

import torch

from benchmarks import decode_cpu


def test_the_benchmark_runs(tmp_path, monkeypatch, capsys):
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["decode_cpu.py", "--quick", "--json", str(report)])
    before = torch.get_num_threads()
    decode_cpu.main()
    assert torch.get_num_threads() == before
    found = json.loads(report.read_text())
    assert len(found["rows"]) == capsys.readouterr().out.count("x static") == 6
    assert all(row["attention_s"]["least"] > 0 for row in found["rows"])
