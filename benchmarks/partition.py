"""Partitions of jobs on identical machines (P||Cmax) against known optima.

    python benchmarks/partition.py [--data ../shared/data/partition/identical-machines.json]
                                   [--time-limit 5] [--json [FILE]]

The file maps a name to `{"machines": m, "jobs": [...], "optimum": C}`. The optimum judges an answer
and is never shown to the solver. `found`: the optimum was reached; `proved`: our own bound meets
our makespan; `near`: within one unit or 0.1 % of the optimum.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from benchmarks import report
from solver.partition.partition import Partition, partition
from solver.partition.problem import PartitionProblem
from solver.placement.exact import Deadline

DATA = Path("../shared/data/partition/identical-machines.json")


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
    try:
        PartitionProblem(np.array(jobs, dtype=np.int64), machines)
    except (OverflowError, ValueError) as error:
        raise refuse(str(error)) from error
    return Instance(name, machines, jobs, optimum)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def measure(instance: Instance, time_limit_s: float, workers: int) -> Row:
    started = time.monotonic()
    found = partition(
        np.array(instance.jobs, dtype=np.int64),
        instance.machines,
        Deadline(started + time_limit_s, Event()),
        workers=workers,
    )
    seconds = time.monotonic() - started
    _check(instance, found)
    return Row(
        name=instance.name,
        machines=instance.machines,
        jobs=len(instance.jobs),
        optimum=instance.optimum,
        makespan=found.makespan,
        lower_bound=found.lower_bound,
        proof=found.proof,
        found=found.makespan == instance.optimum,
        proved=found.lower_bound == found.makespan,
        near=found.makespan <= max(instance.optimum + 1, instance.optimum * 1.001),
        seconds=round(seconds, 3),
    )


def _check(instance: Instance, found: Partition) -> None:
    """The loads, added up anew: an answer that is none must not count."""
    loads = [0] * instance.machines
    for job, machine in zip(instance.jobs, found.machine_of.tolist(), strict=True):
        loads[machine] += job
    assert max(loads) == found.makespan, (instance.name, max(loads), found.makespan)
    if found.makespan < instance.optimum or found.lower_bound > instance.optimum:
        sys.exit(
            f"{instance.name}: makespan {found.makespan} with bound {found.lower_bound} "
            f"contradicts the file's optimum {instance.optimum}"
        )


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


def worker_count(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--time-limit", type=time_limit, default=5.0, metavar="SECONDS")
    parser.add_argument("--workers", type=worker_count, default=os.cpu_count() or 1)
    arguments = report.arguments(parser)
    try:
        instances = read(arguments.data)
    except BadFileError as error:
        parser.error(str(error))
    rows = []
    for number, instance in enumerate(instances, 1):
        print(f"\r{number}/{len(instances)} {instance.name:<40}", end="", file=sys.stderr)
        rows.append(measure(instance, arguments.time_limit, arguments.workers))
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
