"""Faults of the service as a process: `make test-service`, apart from `make test`.

Each fault is tried a few times; with HPLB_TEST_FULL=1 as often as its claim says.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.served import Served, serving_in

FULL = os.environ.get("HPLB_TEST_FULL", "") not in ("", "0")


def times(few: int, full: int) -> range:
    """How often a fault is tried."""
    return range(full if FULL else few)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Starts `hplb serve` in an empty folder, as often as asked."""
    with serving_in(tmp_path) as served:
        yield served
