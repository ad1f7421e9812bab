"""Faults of the service as a process: `make test-service`, apart from `make test`.

Each fault is tried a few times; with HPLB_TEST_FULL=1 as often as its claim says, with
HPLB_TEST_FULL=0.2 a fifth as often. `python -m benchmarks.faults` writes down how often it held.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.served import Served, serving_in

SHARE = float(os.environ.get("HPLB_TEST_FULL") or 0)
FULL = SHARE > 0
_held: list[int] = []


def times(few: int, full: int) -> Iterator[int]:
    """How often a fault is tried; an attempt is over, and has held, when the next is asked for."""
    for attempt in range(max(few, round(SHARE * full))):
        yield attempt
        _held.append(attempt)


@pytest.fixture(autouse=True)
def _attempts(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Note how often the test's fault was tried, where it says so."""
    _held.clear()
    yield
    if _held:
        record_property("attempts", len(_held))
        record_property("share", SHARE)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Starts `hplb serve` in an empty folder, as often as asked."""
    with serving_in(tmp_path) as served:
        yield served
