"""How often each fault of the service was tried, and whether it held every time.

    python -m benchmarks.faults [--share 1.0] [--minutes M] [--only WORDS] [--json [FILE]]

Runs tests/service, the mutated bodies, schemathesis over the whole schema, and every endpoint
without a key, with a wrong one and with one that may too little: 10,000 bodies, and of the others a
fault is tried --share times as often as its claim says (50 clean stops a method, 100 kills), never
less often than CI does; what was tried is counted, not what was asked for. Processes are real, and
so is the time: hours at 1.0 on two cores. After --minutes nothing more is tried, and tests not
reached are named: the same command goes on from there, for what FILE says has held counts. `--only`
as pytest's -k.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report

Row = dict[str, Any]
MUTATIONS = 10_000
TESTS = (
    "tests/api/test_auth.py",
    "tests/api/test_mutated_bodies.py",
    "tests/api/test_openapi.py",
    "tests/service",
)


class Recorder:
    """What pytest tells of each test, beside what is known before: a plugin."""

    def __init__(self, known: list[Row], share: float, latest: float) -> None:
        self.rows = {row["test"]: row for row in known}
        self._all: list[str] = []
        self._row: Row = {}
        self._share = share
        self._latest = latest

    @property
    def left(self) -> list[str]:
        """Tests of which nothing is known."""
        return [name for name in self._all if name not in self.rows]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self._all = [item.nodeid for item in items]
        self.rows = {name: row for name, row in self.rows.items() if name in self._all}
        items[:] = [item for item in items if not self._has_held(item.nodeid)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if time.monotonic() < self._latest:
            return None
        item.session.shouldstop = "the time is up"
        return True

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        before = self.rows.get(nodeid)
        goes_on = before is not None and before["outcome"] == "passed"
        held, seconds = (before["attempts"], before["seconds"]) if goes_on else (0, 0.0)
        os.environ["HPLB_TEST_HELD"] = str(held)
        self._row = {"test": nodeid, "outcome": "passed", "seconds": seconds}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row, told = self._row, dict(report.user_properties)
        row["seconds"] += report.duration
        row["attempts"], row["share"] = told.get("attempts", 1), told.get("share", 1.0)
        if report.outcome != "passed":
            row["outcome"] = report.outcome
            said = report.longrepr
            why = said[2] if isinstance(said, tuple) else str(said).strip().splitlines()[-1]
            row["why"] = str(why)[:300]

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.rows[nodeid] = self._row

    def _has_held(self, name: str) -> bool:
        row = self.rows.get(name)
        return row is not None and row["outcome"] == "passed" and row["share"] >= self._share


def known(destination: str | None) -> list[Row]:
    """The rows of a report that is there."""
    if destination in (None, "-") or not Path(destination).exists():
        return []
    rows: list[Row] = json.loads(Path(destination).read_text())["tests"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--only", default="", help="tests whose names match")
    options = report.arguments(parser)
    os.environ["HPLB_TEST_FULL"] = str(options.share)
    latest = time.monotonic() + 60 * options.minutes
    os.environ["HPLB_TEST_UNTIL"] = str(latest)
    recorder = Recorder(known(options.json), options.share, latest)
    settings = [
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "-q",
        "--timeout",
        "0",
        "--mutations",
        str(MUTATIONS),
    ]
    only = ["-k", options.only] if options.only else []
    pytest.main([*settings, *only, *TESTS], plugins=[recorder])
    rows = list(recorder.rows.values())
    failed = [row["test"] for row in rows if row["outcome"] == "failed"]
    report.deliver(options.json, tests=rows, not_reached=recorder.left)
    sys.exit(f"did not hold: {', '.join(failed)}" if failed else None)


if __name__ == "__main__":
    main()
