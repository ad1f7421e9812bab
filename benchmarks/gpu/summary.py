"""What was found beside what was aimed at, in a short table."""

from typing import Any

from benchmarks.gpu.aims import Row, table


def checks(sections: dict[str, Any]) -> list[Row]:
    """Rows of the checks themselves."""
    return [
        row
        for name, section in sections.items()
        if name.startswith("check")
        for row in section["rows"]
    ]


def failed_checks(sections: dict[str, Any]) -> list[Row]:
    """Checks that were run and are not fine, and processes that ended before their checks did."""
    unfinished = [
        {"case": name, "error": "ended early"}
        for name, section in sections.items()
        if name.startswith("check") and not section["complete"]
    ]
    return unfinished + [
        row for row in checks(sections) if "skipped" not in row and not row.get("ok")
    ]


def summary(sections: dict[str, Any], *, tiny: bool) -> str:
    """Checks, then aims and the headline, but for a tiny run, whose seconds mean nothing."""
    rows = {name: section["rows"] for name, section in sections.items()}
    every, failed = checks(sections), failed_checks(sections)
    skipped = sum("skipped" in row for row in every)
    lines = [f"checks: {len(every)}, failed {len(failed)}, skipped {skipped}"]
    lines += [f"    {row['case']}: {_why(row)}" for row in failed[:20]]
    if not tiny:
        lines += table(sections) + headline(rows.get("headline", []))
    for name, section in sections.items():
        trouble = [row["case"] for row in section["rows"] if "error" in row and "trace" in row]
        skips = sum("skipped" in row for row in section["rows"])
        if trouble or skips or not section["complete"]:
            state = "" if section["complete"] else ", ended early"
            lines.append(f"{name}: errors in {trouble[:5]}, {skips} skipped{state}")
    return "\n".join(lines)


def headline(rows: list[Row]) -> list[str]:
    """A line for every profile, context and layer: times over dense by scheme."""
    lines: dict[tuple[str, int, int], list[str]] = {}
    for row in rows:
        if "over_dense" in row:
            key = (row["profile"], row["tokens"], row["layer"])
            cell = f"{row['scheme']} b{row['block']} {row['over_dense']:.2f}x"
            lines.setdefault(key, []).append(cell)
    return [f"{' '.join(map(str, key))}: {', '.join(cells)}" for key, cells in lines.items()]


def _why(row: Row) -> str:
    told = {key: value for key, value in row.items() if key not in ("case", "trace")}
    return str(told)[:200]
