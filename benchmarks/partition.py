"""Partitions of jobs on identical machines (P||Cmax) against known optima.

    python benchmarks/partition.py [--data ../shared/data/partition/identical-machines.json]
                                   [--time-limit 5] [--json [FILE]]

The file maps a name to `{"machines": m, "jobs": [...], "optimum": C}`. The optimum judges an answer
and is never shown to the solver. `found`: the optimum was reached; `proved`: our own bound meets
our makespan; `near`: within one unit or 0.1 % of the optimum.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from solver.placement import Placement, place

DATA = Path("../shared/data/partition/identical-machines.json")
LARGEST_TOTAL = 2**53
"""Sums are exact below it."""
WITHIN = 1e-9
"""The tolerance: only the optimum ends a search before its time."""


class BadFileError(Exception):
    """The file cannot be read as instances; the message says where."""


@dataclass(frozen=True)
class Instance:
    """Jobs for so many machines, and the makespan that is known to be least."""

    name: str
    machines: int
    jobs: list[int]
    optimum: int


@dataclass(frozen=True)
class Row:
    """How one instance went."""

    name: str
    machines: int
    jobs: int
    optimum: int
    makespan: int
    lower_bound: int
    proof: str
    found: bool
    proved: bool
    near: bool
    seconds: float


def read(path: Path) -> list[Instance]:
    """All instances of a file."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BadFileError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or not content:
        raise BadFileError(f"{path}: must be an object of named instances, at least one")
    return [_instance(path, name, fields) for name, fields in content.items()]


def _instance(path: Path, name: str, fields: Any) -> Instance:
    def refuse(what: str) -> BadFileError:
        return BadFileError(f"{path}: instance {name!r}: {what}")

    if not isinstance(fields, dict):
        raise refuse("must be an object with machines, jobs and optimum")
    missing = [key for key in ("machines", "jobs", "optimum") if key not in fields]
    if missing:
        raise refuse(f"{', '.join(missing)} missing")
    machines, jobs, optimum = fields["machines"], fields["jobs"], fields["optimum"]
    if not _whole(machines) or machines < 1:
        raise refuse(f"machines is {machines!r}, must be a whole number of at least 1")
    if not isinstance(jobs, list) or not all(_whole(job) and job >= 0 for job in jobs):
        raise refuse("jobs must be a list of whole numbers of at least 0")
    if not _whole(optimum) or optimum < 0:
        raise refuse(f"optimum is {optimum!r}, must be a whole number of at least 0")
    if sum(jobs) >= LARGEST_TOTAL:
        raise refuse("the jobs are too large to add up exactly")
    return Instance(name, machines, jobs, optimum)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def measure(instance: Instance, time_limit_s: float) -> Row:
    started = time.monotonic()
    found = place(instance.jobs, instance.machines, time_limit_s=time_limit_s, tolerance=WITHIN)
    seconds = time.monotonic() - started
    makespan, lower_bound = _checked(instance, found)
    return Row(
        name=instance.name,
        machines=instance.machines,
        jobs=len(instance.jobs),
        optimum=instance.optimum,
        makespan=makespan,
        lower_bound=lower_bound,
        proof=found.proofs[0],
        found=makespan == instance.optimum,
        proved=lower_bound == makespan,
        near=makespan <= max(instance.optimum + 1, instance.optimum * 1.001),
        seconds=round(seconds, 3),
    )


def _checked(instance: Instance, found: Placement) -> tuple[int, int]:
    """Makespan and bound, the loads added up anew: an answer that is none must not count."""
    loads = [0] * instance.machines
    for job, machine in zip(instance.jobs, found.device_of_head[0].tolist(), strict=True):
        loads[machine] += job
    makespan, lower_bound = max(loads), math.ceil(found.lower_bound_s * (1 - 1e-9))
    if makespan < instance.optimum or lower_bound > instance.optimum:
        sys.exit(
            f"{instance.name}: makespan {makespan} with bound {lower_bound} "
            f"contradicts the file's optimum {instance.optimum}"
        )
    return makespan, lower_bound


def summary(rows: list[Row]) -> dict[str, Any]:
    return {
        "instances": len(rows),
        "found": sum(row.found for row in rows),
        "proved": sum(row.proved for row in rows),
        "near": sum(row.near for row in rows),
        "seconds": round(sum(row.seconds for row in rows), 3),
    }


def table(rows: list[Row]) -> str:
    """A line for each instance, then the summary."""
    lines = [f"{'instance':<20} {'optimum':>9} {'makespan':>9} {'bound':>9} {'seconds':>8}  proof"]
    lines += [
        f"{row.name:<20} {row.optimum:>9} {row.makespan:>9} {row.lower_bound:>9} "
        f"{row.seconds:>8.2f}  {row.proof}"
        for row in rows
    ]
    lines.append("  ".join(f"{key} {value}" for key, value in summary(rows).items()))
    return "\n".join(lines)


def time_limit(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--time-limit", type=time_limit, default=5.0, metavar="SECONDS")
    arguments = report.arguments(parser)
    try:
        instances = read(arguments.data)
    except BadFileError as error:
        parser.error(str(error))
    rows = []
    for number, instance in enumerate(instances, 1):
        print(f"\r{number}/{len(instances)} {instance.name:<40}", end="", file=sys.stderr)
        rows.append(measure(instance, arguments.time_limit))
    print(file=sys.stderr)
    if arguments.json != "-":
        print(table(rows))
    report.deliver(
        arguments.json,
        time_limit_s=arguments.time_limit,
        summary=summary(rows),
        rows=[asdict(row) for row in rows],
    )


if __name__ == "__main__":
    main()
