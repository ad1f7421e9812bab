"""The benchmarks' reports as the page reads them, and how it says where a figure is from."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.markdown import table
from profiles.errors import HplbError

Key = TypeVar("Key")
Row = TypeVar("Row")
Report = dict[str, Any]
NOT_RECORDED = "hardware not recorded"
STALE: dict[str, str] = {}
"""Why a report is not of today's code; an entry goes when its file is made anew."""


@dataclass(frozen=True)
class Reports:
    """A folder of reports, by name without `.json`."""

    folder: Path

    def __getitem__(self, name: str) -> Report:
        found: Report = json.loads((self.folder / f"{name}.json").read_text())
        return found

    def source(self, *names: str) -> str:
        """What made these reports, on what, and where they are."""
        return "\n".join(f"- {self._source(name)}" for name in names) + "\n"

    def _source(self, name: str) -> str:
        report = self[name]
        commands = " and ".join(f"`{_command(run)}`" for run in report.get("runs", [report]))
        told = [_machine(report)]
        if "measured_on" in report:
            told.append(f"the rows: {report['measured_on']}")
        if "note" in report:
            told.append(report["note"])
        if name in STALE:
            told.append(f"**stale**: {STALE[name]}")
        return f"[{name}.json](../benchmarks/results/{name}.json): {commands}; {'; '.join(told)}."


def _command(run: Report) -> str:
    """The command without what lies above the repository, and without its environment."""
    below = re.sub(r"\S*/(?=benchmarks/[\w/]+\.py)|\.venv/bin/", "", run["command"])
    return re.sub(r"benchmarks/(\w+)/__main__\.py", r"-m benchmarks.\1", below)


def _machine(report: Report) -> str:
    return str(report.get("machine") or report.get("fitted_on") or NOT_RECORDED)


class UntrueError(HplbError):
    """The figures do not bear out what the page says of them: think again, and write it anew."""


def claim(text: str, holds: bool) -> str:
    """`text`, which is true only where it `holds`; else raises UntrueError."""
    if not holds:
        raise UntrueError(f"no longer so by the results files: {text}")
    return text


def share(reached: Report) -> str:
    """`{met, of}` in words."""
    return f"{reached['met']:,} of {reached['of']:,}"


def span(values: list[float], form: str = ".2f") -> str:
    """The least and the greatest, or the one value where they read alike."""
    low, high = (format(bound, form) for bound in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def percent(ratio: float, digits: int = 2) -> str:
    return f"{100 * ratio:.{digits}f} %"


def grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Rows that agree in `key`, in the order they came."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as one text, an empty line at its end."""
    return "\n".join(table(heads, rows))
