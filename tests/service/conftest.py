"""Faults of the service as a process: `make test-service`, apart from `make test`.

Each fault is tried a few times; with HPLB_TEST_FULL=1 as often as its claim says, with
HPLB_TEST_FULL=0.2 a fifth as often. `python -m benchmarks.faults` writes down how often it held,
and goes on from there: from HPLB_TEST_HELD attempts until the monotonic clock's HPLB_TEST_UNTIL.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.served import Served, serving_in

SHARE = float(os.environ.get("HPLB_TEST_FULL") or 0)
FULL = SHARE > 0
_held: list[int] = []
_wanted: list[int] = []


def times(few: int, full: int) -> Iterator[int]:
    """How often a fault is tried; an attempt is over, and has held, when the next is asked for."""
    first = int(os.environ.get("HPLB_TEST_HELD", "0"))
    latest = float(os.environ.get("HPLB_TEST_UNTIL", "inf"))
    _wanted.append(full)
    for attempt in range(first, max(few, round(SHARE * full))):
        if attempt >= first + few and time.monotonic() > latest:
            return
        yield attempt
        _held.append(attempt)


@pytest.fixture(autouse=True)
def _attempts(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Note how often the test's fault was tried, where it says so."""
    _held.clear()
    _wanted.clear()
    yield
    if _held:
        attempts = _held[-1] + 1
        record_property("attempts", attempts)
        record_property("share", attempts / _wanted[0])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Starts `hplb serve` in an empty folder, as often as asked."""
    with serving_in(tmp_path) as served:
        yield served
