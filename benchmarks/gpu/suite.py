"""The sections in the order of their value, each one's part of the time, and who runs them."""

import argparse
import importlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu.rows import read

PEERS = "-peers"
SECTIONS = {
    "ceilings": 15,
    "uniform_sparse": 45,
    "dense": 35,
    "headline": 150,
    "selection": 45,
    "decode": 75,
    "head_budgets": 35,
    "sm_share": 25,
    "makespan": 20,
    "head_budgets-peers": 50,
    "dense-peers": 45,
    "headline-peers": 10,
    "decode-peers": 20,
}
"""Seconds of a whole run; what a section leaves over goes to those after it.

Other people's kernels come last, whichever section asks for them.
"""
CHECK_S = 110
"""Of a run's time at most; see README.md for what the checks take."""


def expanded(names: Iterable[str]) -> list[str]:
    """Sections of these names with the peers that belong to them, in the order of their value.

    The ceilings are always among them: the others are judged by them.
    """
    wanted = {"ceilings", *names}
    return [name for name in SECTIONS if name.removesuffix(PEERS) in wanted]


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
        seconds = left_s * weights[number] / sum(weights[number:])
        if not read(arguments.folder / f"{name}.json").get("complete"):
            run_section(name, arguments.folder, arguments.tiny, seconds, arguments.until)


def run_section(name: str, folder: Path, tiny: bool, seconds: float, ends: float) -> None:
    # torch only here: the parent process reads this module without it.
    from benchmarks.gpu.section import Section

    section = Section(name, folder, tiny=tiny, until=time.time() + seconds, ends=ends)
    module, _, part = name.partition("-")
    try:
        found = importlib.import_module(f"benchmarks.gpu.{module}")
        if module == "check":
            found.run(section, part)
        elif part:
            found.peers(section)
        else:
            found.run(section)
    except Exception as error:
        section.failed("section", error)
    section.finish()


if __name__ == "__main__":
    main()
