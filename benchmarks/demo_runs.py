"""Whether seconds come true: `hplb demo --json` again and again, and how many runs meet the aims.

    python -m benchmarks.demo_runs [--runs 10] [--keep DIR] [--flags "..."] [--json [FILE]]

Every run plans, measures, refits and plans again, from processes that know nothing of another.
Aims: the mean error of device loads after refitting at most 10 %; the gain measured of the last
generation over contiguous placement with the same budgets within 5 points of the one predicted; and
an interval of that gain (95 %, its median over rounds) above nothing. --keep: where the runs'
JSON lies, a file each; those that are there are not run again. --flags: for the demo.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import report

MOST_ERROR, MOST_APART = 0.10, 0.05
Run = dict[str, Any]


def met(run: Run) -> dict[str, bool]:
    """Each aim, and whether a run meets it."""
    return {
        "error": run["error_after"] <= MOST_ERROR,
        "prediction": abs(run["gain_measured"] - run["gain_predicted"]) <= MOST_APART,
        "significant": run["gain_interval"] is not None and run["gain_interval"][0] > 0,
    }


def summarise(runs: list[Run]) -> dict[str, Any]:
    """How many runs meet each aim and all of them, and the medians of their figures."""
    aims = [met(run) for run in runs]
    figures = ("error_before", "error_after", "gain_predicted", "gain_measured")
    return {
        "runs": len(runs),
        "met": {aim: sum(each[aim] for each in aims) for aim in aims[0]},
        "met_all": sum(all(each.values()) for each in aims),
        "medians": {name: median(run[name] for run in runs) for name in figures},
    }


def demo(flags: list[str]) -> Run:
    """One run; what it says goes to stderr."""
    command = [sys.executable, "-m", "api.main", "demo", "--json", *flags]
    found: Run = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def table(runs: list[Run]) -> Table:
    made = Table("run", "tokens", "error %", "predicted %", "measured %", "interval %", "missed")
    for number, run in enumerate(runs, 1):
        low, high = run["gain_interval"] or (float("nan"), float("nan"))
        made.add_row(
            str(number),
            str(run["context_tokens"]),
            f"{100 * run['error_after']:.1f}",
            f"{100 * run['gain_predicted']:.1f}",
            f"{100 * run['gain_measured']:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            ", ".join(aim for aim, yes in met(run).items() if not yes) or "none",
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10, help="how many")
    parser.add_argument("--keep", type=Path, help="a folder for the runs' JSON")
    parser.add_argument("--flags", default="", help='for the demo, e.g. "--rounds 8"')
    asked = report.arguments(parser)
    if asked.keep is not None:
        asked.keep.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    for number in range(1, asked.runs + 1):
        kept = None if asked.keep is None else asked.keep / f"run_{number:02}.json"
        if kept is not None and kept.is_file():
            runs.append(json.loads(kept.read_text()))
            continue
        runs.append(demo(shlex.split(asked.flags)))
        if kept is not None:
            kept.write_text(json.dumps(runs[-1], indent=1) + "\n")
        print(f"run {number} of {asked.runs}: {met(runs[-1])}", file=sys.stderr)
    summary = summarise(runs)
    console = Console(file=report.table_to(asked.json))
    console.print(table(runs))
    console.print(f"{summary['met_all']} of {summary['runs']} runs meet all aims: {summary['met']}")
    report.deliver(asked.json, summary=summary, rows=runs)


if __name__ == "__main__":
    main()
