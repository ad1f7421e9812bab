"""The sections, in the order of their importance, and each one's part of the time."""

import argparse
import importlib
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

SECTIONS = {
    "ceilings": 5,
    "dense": 55,
    "headline": 130,
    "decode": 50,
    "head_budgets": 80,
    "uniform_sparse": 25,
    "selection": 25,
    "sm_share": 25,
    "makespan": 20,
}
"""Seconds of a whole run; what a section leaves over goes to those after it."""
CHECK_PARTS = 9
"""Processes that share the checks: nearly all of their time is compiling."""
CHECK_S = 110


def parts(tiny: bool) -> list[str]:
    """What the checks' processes are called."""
    return [f"check-{part}" for part in range(1 if tiny else CHECK_PARTS)]


def main() -> None:
    """A worker: runs the named sections one after another, each into its own file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True, help="seconds since 1970")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    if arguments.tiny:
        # Read when kernels are decorated, hence before any section is imported.
        os.environ["TRITON_INTERPRET"] = "1"
    weights = [SECTIONS.get(name, 1) for name in arguments.names]
    for number, name in enumerate(arguments.names):
        left_s = arguments.until - time.time()
        share = weights[number] / sum(weights[number:])
        run_section(name, arguments.folder, arguments.tiny, left_s * share)


def run_section(name: str, folder: Path, tiny: bool, seconds: float) -> None:
    # torch only here: the parent process reads this module without it.
    from benchmarks.gpu.section import Section

    section = Section(name, folder, tiny=tiny, seconds=seconds)
    module, _, part = name.partition("-")

    def run() -> dict[str, Any]:
        call = importlib.import_module(f"benchmarks.gpu.{module}").run
        if part:
            call = partial(call, part=int(part), parts=len(parts(tiny)))
        call(section)
        return {}

    section.attempt("section", run)
    section.finish()


if __name__ == "__main__":
    main()
