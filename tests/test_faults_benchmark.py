"""Counts of faults add up over several runs, and only what held counts."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.faults import Recorder
from tests.service import conftest as faults

HELD = {"test": "t", "outcome": "passed", "seconds": 5.0, "attempts": 3, "share": 0.3}


def test_a_fault_is_tried_from_where_it_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "SHARE", 1.0)
    assert list(faults.times(2, 10)) == list(range(10))
    monkeypatch.setenv("HPLB_TEST_HELD", "3")
    assert list(faults.times(2, 10)) == list(range(3, 10))
    monkeypatch.setenv("HPLB_TEST_UNTIL", "0")
    assert list(faults.times(2, 10)) == [3, 4]


@pytest.mark.parametrize(
    ("before", "outcome", "seconds", "held"),
    [
        (HELD, "passed", 7.0, True),
        (HELD, "failed", 7.0, False),
        ({**HELD, "outcome": "failed"}, "passed", 2.0, True),
    ],
)
def test_what_a_run_adds(
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, Any],
    outcome: str,
    seconds: float,
    held: bool,
) -> None:
    monkeypatch.setenv("HPLB_TEST_HELD", "-")
    recorder = Recorder([before], 1.0, float("inf"))
    assert not recorder._has_held("t")
    recorder.pytest_runtest_logstart("t")
    assert os.environ["HPLB_TEST_HELD"] == ("3" if before is HELD else "0")
    told: Any = SimpleNamespace(
        nodeid="t",
        duration=2.0,
        outcome=outcome,
        longrepr="why",
        user_properties=[("attempts", 10), ("share", 1.0)],
    )
    recorder.pytest_runtest_logreport(told)
    assert recorder.rows["t"] is before  # an interrupted test adds nothing
    recorder.pytest_runtest_logfinish("t")
    row = recorder.rows["t"]
    assert (row["outcome"], row["seconds"], row["attempts"]) == (outcome, seconds, 10)
    assert recorder._has_held("t") is held
