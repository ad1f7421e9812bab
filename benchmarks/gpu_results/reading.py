"""Results files of `benchmarks.gpu`, read strictly: only measurements of known GPUs are taken.

`benchmarks/results/gpu-TYPE-DATE-COMMIT.json` are those that tables and rates are made of. What
counts of a GPU type is its newest file and the other files of that one's commit: figures of older
kernels say nothing of the newest.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.gpu.rows import SHARED, Row, Sections, has_figures
from profiles.errors import HplbError

FOLDER = Path("benchmarks/results")
FILES = "gpu-*.json"
GPU_TYPE = re.compile(r"\b(A100|H100|H200)\b")
OTHER_CHIPS = re.compile(r"PCIe|NVL|MIG|40GB", re.IGNORECASE)
"""Slower cards of the same name, and parts of one: the catalogue's types are whole SXM modules."""


class ResultsError(HplbError):
    """A results file that no figure may be taken from."""


@dataclass(frozen=True)
class Results:
    """What one commit's kernels did on one type of GPU.

    `files` by name, the newest last; `machine` is the newest file's. `sections` have every case
    once, `shared` the rows that several sections use.
    """

    device: str
    machine: Row
    files: tuple[str, ...]
    sections: Sections
    shared: Row


@dataclass(frozen=True)
class ResultsFile:
    """A results file that may be used; `stored_as` is its name in the results folder."""

    name: str
    device: str
    found: Row

    @property
    def machine(self) -> Row:
        machine: Row = self.found["machine"]
        return machine

    @property
    def date(self) -> datetime:
        return datetime.fromisoformat(self.machine["date"])

    @property
    def stored_as(self) -> str:
        return f"gpu-{self.device}-{self.date:%Y%m%d-%H%M%S}-{self.machine['commit'][:7]}.json"


def read(path: Path, made_up: bool = False) -> ResultsFile:
    """The file at `path`; raises ResultsError. `made_up`: also one labelled as no measurement."""
    try:
        found = json.loads(path.read_text())
        machine, sections = found["machine"], found["sections"]
        gpu, commit, _ = machine["gpu"], machine["commit"], datetime.fromisoformat(machine["date"])
        labels = [found.get("label"), *(section.get("label") for section in sections.values())]
        tiny = found["tiny"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path}: no results file of benchmarks.gpu: {error!r}") from error
    label = next(filter(None, labels), "a tiny run" if tiny else None)
    if label and not made_up:
        raise ResultsError(f"{path}: not a measurement: {label}")
    if not commit:
        raise ResultsError(f"{path}: which commit it measured is not said (--commit)")
    return ResultsFile(path.name, device_type(gpu), found)


def device_type(gpu: str | None) -> str:
    """The catalogue's name of a GPU that calls itself `gpu`; raises ResultsError for others.

    >>> device_type("NVIDIA H100 80GB HBM3"), device_type("NVIDIA H200")
    ('h100', 'h200')
    """
    known = GPU_TYPE.search(gpu or "")
    if known is None or OTHER_CHIPS.search(gpu or ""):
        raise ResultsError(f"GPU {gpu!r} is none of the catalogue's: A100, H100 and H200 (SXM)")
    return known[1].lower()


def newest(files: Iterable[ResultsFile]) -> dict[str, Results]:
    """By device type, what its newest file's commit was measured at."""
    by_type: dict[str, list[ResultsFile]] = {}
    for file in sorted(files, key=lambda file: (file.date, file.name)):
        by_type.setdefault(file.device, []).append(file)
    return {device: _together(those) for device, those in sorted(by_type.items())}


def _together(files: list[ResultsFile]) -> Results:
    last = files[-1]
    files = [file for file in files if file.machine["commit"] == last.machine["commit"]]
    sections: Sections = {}
    shared: Row = {}
    for file in files:
        shared |= file.found.get(SHARED, {})
        for name, section in file.found["sections"].items():
            before = sections.get(name, {"rows": []})["rows"]
            sections[name] = section | {"rows": _newer(before, section["rows"])}
    return Results(last.device, last.machine, tuple(f.name for f in files), sections, shared)


def _newer(before: list[Row], rows: list[Row]) -> list[Row]:
    """One row a case: the newest with figures, else the newest."""
    found = {row["case"]: row for row in before}
    for row in rows:
        if has_figures(row) or not has_figures(found.get(row["case"], row)):
            found[row["case"]] = row
    return list(found.values())
