"""How the run went: what failed, what time did not suffice for, what was never begun; then aims."""

from collections.abc import Iterable

from benchmarks.gpu.aims import table
from benchmarks.gpu.rows import Row, Sections

FAILED, LATE = 1, 3
"""Exit codes: a check gave a wrong result or an error; every check that ended was fine, but not all
had the time to."""


def summary(sections: Sections, *, tiny: bool) -> str:
    """Checks, sections, then aims and the headline, but for a tiny run's, whose seconds mean
    nothing."""
    checks, measured = _parted(sections)
    lines = [_told("checks", checks)] if checks else []
    lines += [f"    {row['case']}: {_why(row)}" for row in failures(_rows(checks))[:20]]
    lines += [_told(name, {name: section}) for name, section in measured.items()]
    if not tiny:
        lines += table(sections) + headline(sections.get("headline", {}).get("rows", []))
    return "\n".join(lines)


def exit_code(sections: Sections) -> int:
    """FAILED, LATE or 0, by the checks alone."""
    checks, _ = _parted(sections)
    if failures(_rows(checks)):
        return FAILED
    rows, unfinished = _rows(checks), [s for s in checks.values() if s.get("ended") != "finished"]
    return LATE if late(rows) or unfinished else 0


def failures(rows: Iterable[Row]) -> list[Row]:
    """Those with a wrong result or an error."""
    return [row for row in rows if "error" in row or row.get("ok") is False]


def late(rows: Iterable[Row]) -> list[Row]:
    """Those that were not begun, or not ended, for time."""
    return [row for row in rows if row.keys() & {"skipped", "out_of_time"}]


def headline(rows: list[Row]) -> list[str]:
    """A line for every profile, context and layer: times over dense by scheme."""
    lines: dict[tuple[str, int, int], list[str]] = {}
    for row in rows:
        if "over_dense" in row:
            key = (row["profile"], row["tokens"], row["layer"])
            sizes = f"{row['block']}x{row['piece']}"
            cell = f"{row['scheme']} {sizes} {row['over_dense']:.2f}x"
            lines.setdefault(key, []).append(cell)
    return [f"{' '.join(map(str, key))}: {', '.join(cells)}" for key, cells in lines.items()]


def _parted(sections: Sections) -> tuple[Sections, Sections]:
    """Checks, and what was measured."""
    checks = {name: s for name, s in sections.items() if name.startswith("check-")}
    return checks, {name: s for name, s in sections.items() if name not in checks}


def _rows(sections: Sections) -> list[Row]:
    return [row for section in sections.values() for row in section["rows"]]


def _told(what: str, sections: Sections) -> str:
    """How many cases of some sections ended in which way, and which sections did not finish."""
    rows = _rows(sections)
    failed, out_of_time = failures(rows), late(rows)
    fine = len(rows) - len(failed) - len(out_of_time)
    line = f"{what}: {fine} fine, {len(failed)} failed, {len(out_of_time)} out of time"
    earlier = sum("earlier" in row for row in rows)
    line += f", {earlier} from earlier runs" if earlier else ""
    if failed and what != "checks":
        line += f"; errors in {[row['case'] for row in failed][:5]}"
    for ended in ("failed", "out of time", "not run"):
        names = [name for name, section in sections.items() if section.get("ended") == ended]
        if names:
            line += f"; {ended}: {', '.join(names)}"
    return line


def _why(row: Row) -> str:
    told = {key: value for key, value in row.items() if key not in ("case", "trace")}
    return str(told)[:200]
