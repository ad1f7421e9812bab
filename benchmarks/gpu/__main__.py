"""Checks the kernels on the GPU that is here, then measures everything: `python -m benchmarks.gpu`.

    python -m benchmarks.gpu [--json FILE] [--sections a,b] [--seconds 440] [--no-check]
                             [--earlier FILE]... [--commit SHA] [--tiny]

Sections run in processes of their own, the most valuable first, and the file is rewritten while
they do, so that a stop at any time loses nothing. Where prefill fails with tensor descriptors and
not without, everything goes on without. Exit codes: 1 where a check failed, 3 where those that
ended were fine but time did not suffice for all, else 0. --tiny runs everything on tiny shapes in
Triton's interpreter on a CPU: it shows that the scripts work, and its seconds are no measurements.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.check_units import tma_trouble, units
from benchmarks.gpu.crew import Crew
from benchmarks.gpu.earlier import take
from benchmarks.gpu.report import Report
from benchmarks.gpu.suite import CHECK_S, PEERS, SECTIONS, expanded
from benchmarks.gpu.summary import exit_code, summary

MOST_CHECKING = 0.6
"""Share of the run's time that checks may take."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    # Loading torch counts as well.
    began = time.time()
    for number in SIGNALS:
        signal.signal(number, _stop)
    arguments = _arguments()
    until = began + arguments.seconds
    names = expanded(arguments.sections.split(","))
    checks = [] if arguments.no_check else units(arguments.tiny)
    with tempfile.TemporaryDirectory() as place:
        folder, head = Path(place), _head(arguments)
        carried, heads = take(arguments.earlier, head, folder, {*names, *checks})
        report = Report(arguments.json, folder, head, carried)
        for earlier in heads:
            if not earlier["tma"]["used"]:
                _do_without_tma(report, f"an earlier run: {earlier['tma']['why']}")
        try:
            _everything(report, checks, names, until)
        except KeyboardInterrupt:
            print("stopped by a signal", flush=True)
        _ignore()
        report.close([*checks, *names])
        found = report.sections()
    print(summary(found, tiny=arguments.tiny))
    if not head["tma"]["used"]:
        print(f"prefill without tensor descriptors: {head['tma']['why']}")
    print(f"everything is in {arguments.json}, {time.time() - began:.0f} s after the start")
    sys.exit(exit_code(found))


def _everything(report: Report, checks: list[str], names: list[str], until: float) -> None:
    """Checks side by side, since nearly all their time is compiling; then a section at a time."""
    tiny = report.head["tiny"]
    if checks:
        until_checked = min(
            until, time.time() + CHECK_S, time.time() + MOST_CHECKING * (until - time.time())
        )
        crew = Crew(
            report.folder,
            tiny=tiny,
            until=until if tiny else until_checked,
            changed=report.changed,
        )
        # On tiny shapes a process takes longer to start than its checks.
        tasks = [checks] if tiny else [[check] for check in checks]
        crew.run(tasks, at_once=max(1, len(os.sched_getaffinity(0)) - 1))
        trouble = tma_trouble(report.sections())
        if trouble:
            _do_without_tma(report, trouble)
        print(f"checked, {until - time.time():.0f} s left", flush=True)
    Crew(report.folder, tiny=tiny, until=until, changed=report.changed).run([names])


def _do_without_tma(report: Report, why: str) -> None:
    """Every worker from now on reads keys and values by pointers."""
    os.environ["HPLB_TMA"] = "0"
    report.head["tma"] = {"used": False, "why": why}
    print(f"going on without tensor descriptors: {why}", flush=True)


def _head(arguments: argparse.Namespace) -> dict[str, Any]:
    """Machine, commit and whether prefill may use tensor descriptors (TMA)."""
    # Imports torch.
    from benchmarks.gpu.machine import machine

    found = machine(arguments.commit)
    if found["gpu"] is None and not arguments.tiny:
        print("no GPU here: use --tiny to try the scripts on a CPU", file=sys.stderr)
        sys.exit(2)
    tma = {"used": True, "why": "the GPU has them"}
    if os.environ.get("HPLB_TMA") == "0":
        tma = {"used": False, "why": "HPLB_TMA=0"}
    elif found["gpu"] and found["capability"] < [9, 0]:
        tma = {"used": False, "why": "the GPU has none"}
    return {"machine": found, "tiny": arguments.tiny, "tma": tma}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("OUT", ".")) / "gpu_benchmarks.json"
    parser.add_argument("--json", type=Path, default=default, metavar="FILE")
    own = [name for name in SECTIONS if not name.endswith(PEERS)]
    parser.add_argument(
        "--sections",
        default=",".join(own),
        help=f"comma-separated, of {', '.join(own)}; in this order, then their peers",
    )
    parser.add_argument("--seconds", type=float, default=440.0, help="for everything together")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument(
        "--earlier",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="results of the same commit on the same GPU: their cases are not run again",
    )
    parser.add_argument("--commit", help="of this code, where git cannot tell")
    parser.add_argument("--tiny", action="store_true", help="in the interpreter, on a CPU")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sections.split(",") if name not in own]
    if arguments.sections and unknown:
        parser.error(f"unknown section {unknown[0]!r}: known are {', '.join(own)}")
    missing = [path for path in arguments.earlier if not path.exists()]
    if missing:
        parser.error(f"no file {missing[0]}")
    return arguments


def _stop(_number: int, _frame: object) -> None:
    # `timeout` sends its signal twice.
    _ignore()
    raise KeyboardInterrupt


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
