"""How often each fault of the service was tried, and whether it held every time.

    python -m benchmarks.faults [--share 1.0] [--minutes M] [--only WORDS] [--json [FILE]]

Runs tests/service, the mutated bodies, schemathesis over the whole schema, and every endpoint
without a key, with a wrong one and with one that may too little: 10,000 bodies, and of the others a
fault is tried --share times as often as its claim says (50 clean stops a method, 100 kills), never
less often than CI does; what was tried is counted, not what was asked for. Processes are real, and
so is the time: hours at 1.0 on two cores. After --minutes no further test is begun, and those not
reached are named. `--only` as pytest's -k.
"""

import argparse
import math
import os
import sys
import time
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
    """What pytest tells of each test: a plugin."""

    def __init__(self, latest: float) -> None:
        self.rows: dict[str, Row] = {}
        self.left: list[str] = []
        self._latest = latest

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.left = [item.nodeid for item in session.items]

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.left.remove(nodeid)

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        if time.monotonic() > self._latest:
            item.session.shouldstop = "the time is up"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self.rows.setdefault(
            report.nodeid, {"test": report.nodeid, "outcome": "passed", "seconds": 0.0}
        )
        row["seconds"] += report.duration
        row["attempts"] = dict(report.user_properties).get("attempts", 1)
        if report.outcome != "passed":
            row["outcome"] = report.outcome
            said = report.longrepr
            why = said[2] if isinstance(said, tuple) else str(said).strip().splitlines()[-1]
            row["why"] = str(why)[:300]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--only", default="", help="tests whose names match")
    options = report.arguments(parser)
    os.environ["HPLB_TEST_FULL"] = str(options.share)
    recorder = Recorder(time.monotonic() + 60 * options.minutes)
    settings = ["-p", "no:xdist", "-p", "no:cacheprovider", "-q", "--mutations", str(MUTATIONS)]
    only = ["-k", options.only] if options.only else []
    pytest.main([*settings, *only, *TESTS], plugins=[recorder])
    rows = list(recorder.rows.values())
    failed = [row["test"] for row in rows if row["outcome"] == "failed"]
    report.deliver(options.json, share=options.share, tests=rows, not_reached=recorder.left)
    sys.exit(f"did not hold: {', '.join(failed)}" if failed else None)


if __name__ == "__main__":
    main()
