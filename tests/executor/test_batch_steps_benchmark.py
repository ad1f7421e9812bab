"""What laying out batches costs: each kind of batch is a step for every layer of the rank."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import batch_steps
from executor.inference.slot_steps import SlotSteps


@pytest.mark.parametrize(("kind", "phases"), [("decodes", 1), ("one chunk", 2), ("chunks", 1)])
def test_batches_are_what_they_are_called(kind: str, phases: int) -> None:
    made, layers = batch_steps.two_ranks(), range(batch_steps.SHAPE.layers)
    steps = SlotSteps(made, (0,), batch_steps.LONGEST, torch.device("cpu"), layers)
    for had, has in batch_steps.batches(kind, 4, 2):
        found = steps.of_batch(had, has)
        assert len(found.phases) == phases
        assert all(step is not None for phase in found.phases for step in phase.steps)
        assert 0 < found.tiles < found.dense_tiles


def test_the_report_has_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "batch_steps.json"
    arguments = ["batch_steps.py", "--rounds", "2", "--json", str(report)]
    monkeypatch.setattr(sys, "argv", arguments)
    before = torch.get_num_threads()
    batch_steps.main()
    assert torch.get_num_threads() == before
    found = json.loads(report.read_text())
    assert [row["batch"] for row in found["rows"]] == ["decodes", "one chunk", "chunks", "as many"]
    for row in found["rows"]:
        assert row["ratio"] == row["many_s"] / row["one_s"]
