"""What every part of the search buys: plans and partitions with one part taken out at a time.

    python -m benchmarks.ablation [--without NAME,...] [--gpus 8] [--time-limit 3] [--repeats 1]
                                  [--json [FILE]]

Real profiles at 131,072 tokens (every head whole, equal counts, divided; copies priced under both
deployments, and free) and the published partitions of `../shared/data/partition`, the whole search
and every reduced one in turn with equal time, so that a busy machine is busy for all. A name with
`+` takes several parts out together. Prints the change of the makespan over the whole search (mean
and worst, of medians over the repeats) and how many gaps stay open above 0.5 %.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import markdown, partition, report
from benchmarks.placement import SETTINGS, load, request
from profiles.catalogue import catalogue_rates
from solver.heuristics.greedy import greedy
from solver.planning.planner import make_plan

WHOLE = "everything"
KINDS = ("free", "equal", "divided")
OPEN = 0.005
"""Gaps above this count as open."""
Row = dict[str, Any]


def _unchanged(_program: Any, _layer: Any, known: Any, *_: Any, **__: Any) -> Any:
    """A step that leaves a layer as it was."""
    return known


def _as_started(_layer: Any, start: Any, *_: Any, **__: Any) -> Any:
    """A descent that stays where it began."""
    return start


PARTS: dict[str, dict[str, Callable[..., Any]]] = {
    "multifit": {"solver.search.starts.multifit": greedy},
    "exchange": {"solver.search.steps.exchange": _as_started},
    "descent": {
        "solver.search.starts._descended": lambda _, tried, __: list(tried),
        "solver.search.steps._descended": lambda layer, starts, _: min(starts, key=layer.makespan),
    },
    "configuration bound": {"solver.search.steps.Fillings.prove": _unchanged},
    "resplit": {"solver.search.steps.resplit_pairs": _as_started},
    "subset sums": {"solver.search.steps.Fillings._fill": _unchanged},
    "listed fillings": {"solver.filling.cover.all_fillings": lambda *_: None},
    "covering": {"solver.search.steps.Fillings.cover": _unchanged},
    "cp_sat": {"solver.exact.cp_sat.cp_sat": lambda _, known, *__: known},
    "components": {
        "solver.divide.divide.applies": lambda _: False,
        "solver.divide.divided_bounds.applies": lambda _: False,
    },
    "retreat": {"solver.divide.divide.retreat": _as_started},
}


@contextmanager
def without(parts: str) -> Iterator[None]:
    """The search without these parts, joined by `+`; all of it for `everything`."""
    with ExitStack() as stack:
        for part in [] if parts == WHOLE else parts.split("+"):
            for target, stand_in in PARTS[part].items():
                stack.enter_context(patch(target, stand_in))
        yield


def plans(names: list[str] | None, data: Path, gpus: int, limit: float) -> Iterator[Row]:
    """Every problem, and how to solve it: a name, and a function that gives makespan and bound."""
    rates = catalogue_rates(["h200"], "prefill")
    for profile in load(data, names):
        for setting in SETTINGS:
            for kind in KINDS:

                def solve(profile: Any = profile, setting: str = setting, kind: str = kind) -> Row:
                    plan = make_plan(request(profile, gpus, setting, kind, limit), [rates])
                    return {
                        "makespan": plan.makespan_s,
                        "bound": plan.lower_bound_s,
                        "divisions": sum(plan.divisions),
                        "seconds": plan.solve_s,
                    }

                yield {
                    "name": f"{profile.name}, {setting}, {kind}",
                    "family": f"{kind}, copies {'free' if 'free' in setting else 'priced'}",
                    "solve": solve,
                }


def partitions(path: Path, limit: float) -> Iterator[Row]:
    """The published instances, which only their optimum ends before their time."""
    if not path.exists():
        return
    for instance in partition.read(path):

        def solve(instance: partition.Instance = instance) -> Row:
            found = partition.measure(instance, limit)
            return {
                "makespan": found.makespan,
                "bound": found.lower_bound,
                "divisions": 0,
                "seconds": found.seconds,
            }

        yield {"name": instance.name, "family": "partitions", "solve": solve}


def measure(problems: Iterator[Row], variants: list[str], repeats: int) -> list[Row]:
    """Every problem by every variant, the order turned from problem to problem."""
    rows = []
    for number, problem in enumerate(problems):
        found: dict[str, list[Row]] = {variant: [] for variant in variants}
        turn = number % len(variants)
        for _ in range(repeats):
            for variant in variants[turn:] + variants[:turn]:
                with without(variant):
                    found[variant].append(problem["solve"]())
        for variant, each in found.items():
            medians = {key: float(np.median([one[key] for one in each])) for key in each[0]}
            rows.append(
                {"problem": problem["name"], "family": problem["family"], "without": variant}
                | medians
            )
        print(f"\r{number + 1} {problem['name'][:70]:<70}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rows


def summary(rows: list[Row]) -> list[Row]:
    """Every variant in every family against the whole search."""
    whole = {row["problem"]: row for row in rows if row["without"] == WHOLE}
    found = []
    for family in dict.fromkeys(row["family"] for row in rows):
        for variant in dict.fromkeys(row["without"] for row in rows):
            mine = [r for r in rows if (r["family"], r["without"]) == (family, variant)]
            ratio = np.array([r["makespan"] / whole[r["problem"]]["makespan"] for r in mine]) - 1
            gaps = np.array([1 - r["bound"] / r["makespan"] for r in mine])
            before = sum(whole[r["problem"]]["divisions"] for r in mine)
            found.append(
                {
                    "family": family,
                    "without": variant,
                    "problems": len(mine),
                    "mean_percent": 100 * float(ratio.mean()),
                    "worst_percent": 100 * float(ratio.max()),
                    "worst_problem": mine[int(ratio.argmax())]["problem"],
                    "worse": int((ratio > 1e-9).sum()),
                    "better": int((ratio < -1e-9).sum()),
                    "open": int((gaps > OPEN).sum()),
                    "proved": int((gaps <= 1e-9).sum()),
                    "mean_gap_percent": 100 * float(gaps.mean()),
                    "divisions_percent": 100 * (sum(r["divisions"] for r in mine) / before - 1)
                    if before
                    else 0.0,
                    "seconds": sum(r["seconds"] for r in mine),
                }
            )
    return found


def table(found: list[Row]) -> str:
    """Markdown: one line a family and variant."""
    heads = (
        *("family", "without", "makespan mean / worst %", "worse / better of", "gap %"),
        *("open", "proved", "divisions %", "s"),
    )
    rows = [
        (
            r["family"],
            r["without"],
            f"{r['mean_percent']:+.4f} / {r['worst_percent']:+.3f}",
            f"{r['worse']} / {r['better']} of {r['problems']}",
            f"{r['mean_gap_percent']:.3f}",
            str(r["open"]),
            str(r["proved"]),
            f"{r['divisions_percent']:+.1f}",
            f"{r['seconds']:.0f}",
        )
        for r in found
    ]
    return "\n".join(markdown.table(heads, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/heads"))
    parser.add_argument("--partitions", type=Path, default=partition.DATA)
    parser.add_argument("--profiles", help="parts of names, comma-separated; all unless given")
    parser.add_argument(
        "--without", help=f"comma-separated; all of {', '.join(PARTS)} unless given"
    )
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--time-limit", type=float, default=3.0, help="seconds a plan")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=("plans", "partitions"))
    arguments = report.arguments(parser)
    variants = arguments.without.split(",") if arguments.without else list(PARTS)
    unknown = {part for variant in variants for part in variant.split("+")} - set(PARTS)
    if unknown:
        parser.error(
            f"--without: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}"
        )
    names = arguments.profiles.split(",") if arguments.profiles else None
    rows: list[Row] = []
    if arguments.only != "partitions":
        problems = plans(names, arguments.data, arguments.gpus, arguments.time_limit)
        rows += measure(problems, [WHOLE, *variants], arguments.repeats)
    if arguments.only != "plans":
        problems = partitions(arguments.partitions, arguments.time_limit)
        rows += measure(problems, [WHOLE, *variants], arguments.repeats)
    if not rows:
        parser.error(f"no profile below {arguments.data} matches {arguments.profiles!r}")
    found = summary(rows)
    print(table(found), file=report.table_to(arguments.json))
    report.deliver(
        arguments.json,
        note="predicted seconds (H200 rates fitted on dense FlashAttention-3), not measured",
        time_limit_s=arguments.time_limit,
        repeats=arguments.repeats,
        summary=found,
    )


if __name__ == "__main__":
    main()
