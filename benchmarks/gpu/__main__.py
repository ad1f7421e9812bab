"""Checks the kernels on the GPU that is here, then measures everything: `python -m benchmarks.gpu`.

    python -m benchmarks.gpu [--json FILE] [--sections a,b] [--seconds 440] [--tiny] [--no-check]

Sections run in processes of their own, so that one that hangs or breaks the device ends alone; the
file is rewritten after every row, so that a stop at any time loses nothing. The exit code is 1
where a check failed. --tiny runs everything on tiny shapes in Triton's interpreter on a CPU: it
shows that the scripts work, and its seconds are not measurements.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import machine
from benchmarks.gpu.suite import CHECK_S, SECTIONS, parts
from benchmarks.gpu.summary import failed_checks, summary

GRACE_S = 45.0
"""What a section may take beyond its time: a case under way is not broken off."""
LAST_GRACE_S = 15.0
"""The same for everything together."""
Found = dict[str, Any]


class Report:
    """Everything found so far, in one file."""

    def __init__(self, path: Path, folder: Path, tiny: bool) -> None:
        self.path, self.folder, self.tiny = path, folder, tiny
        self.head: Found = {"machine": machine(), "tiny": tiny}

    def sections(self) -> dict[str, Found]:
        found = {}
        for file in sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime):
            found[file.stem] = json.loads(file.read_text())
        return found

    def write(self) -> None:
        found = self.head | {"sections": self.sections()}
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(found, indent=1) + "\n")
        unfinished.replace(self.path)


def started(names: list[str], report: Report, until: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-u", "-m", "benchmarks.gpu.suite", "--until", str(until)]
    command += ["--folder", str(report.folder), *(["--tiny"] if report.tiny else []), *names]
    return subprocess.Popen(command)


def check(report: Report, until: float) -> None:
    """All parts of the checks at once."""
    workers = [started([name], report, until) for name in parts(report.tiny)]
    while any(worker.poll() is None for worker in workers) and time.time() < until + LAST_GRACE_S:
        time.sleep(0.2)
        report.write()
    for worker in workers:
        worker.kill()
        worker.wait()
    report.write()


def measure(names: list[str], report: Report, until: float) -> None:
    """One section after another; a worker that died or hangs is replaced for those left."""
    left = list(names)
    while left and time.time() < until:
        worker = started(left, report, until)
        while worker.poll() is None and not hangs(report.sections(), left, until):
            time.sleep(0.2)
            report.write()
        worker.kill()
        worker.wait()
        begun = [name for name in left if (report.folder / f"{name}.json").exists()]
        # A worker that did not even begin would not the next time.
        left = left[max(len(begun), 1) :]
        report.write()


def hangs(sections: dict[str, Found], names: list[str], until: float) -> bool:
    """Whether the worker on `names` is far beyond the time of its section, or all time is up."""
    ends = [s["until"] for name, s in sections.items() if name in names and not s["complete"]]
    now = time.time()
    return now > until + LAST_GRACE_S or any(now > end + GRACE_S for end in ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("OUT", ".")) / "gpu_benchmarks.json"
    parser.add_argument("--json", type=Path, default=default, metavar="FILE")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated")
    parser.add_argument("--seconds", type=float, default=440.0, help="for everything together")
    parser.add_argument("--tiny", action="store_true", help="in the interpreter, on a CPU")
    parser.add_argument("--no-check", action="store_true")
    arguments = parser.parse_args()
    names = arguments.sections.split(",") if arguments.sections else []
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}: known are {', '.join(SECTIONS)}")
    until = time.time() + arguments.seconds
    with tempfile.TemporaryDirectory() as folder:
        report = Report(arguments.json, Path(folder), arguments.tiny)
        if not arguments.tiny and report.head["machine"]["gpu"] is None:
            parser.error("no GPU here: use --tiny to try the scripts on a CPU")
        if not arguments.no_check:
            check(report, min(until, time.time() + CHECK_S))
        measure(names, report, until)
        found = report.sections()
    print(summary(found, tiny=arguments.tiny))
    print(f"everything is in {arguments.json}")
    sys.exit(1 if failed_checks(found) else 0)


if __name__ == "__main__":
    main()
