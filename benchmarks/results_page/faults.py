"""How often the service's faults were tried, and what held."""

import re

from benchmarks.results_page.reports import Report, Reports, grid, grouped, percent

WORDS = {"failed": "Did not hold", "skipped": "Left out"}
TEST = re.compile(r"tests/(?:\w+/)*test_(?P<file>\w+)\.py::test_(?P<name>\w+)(?:\[(?P<of>.*)\])?")


def section(reports: Reports) -> str:
    report = reports["faults"]
    tests = report["tests"]
    tried = [row for row in tests if row["outcome"] != "skipped"]
    held = [row for row in tried if row["outcome"] == "passed"]
    apart = "".join(
        f" {WORDS[row['outcome']]}: {_sentence(row)} ({row['why']})."
        for row in tests
        if row["outcome"] != "passed"
    )
    rows = [_row(of) for of in grouped(held, lambda row: _parts(row)[:2]).values()]
    return f"""\
## Faults

Processes killed, stopped, starved and cut off, keys that may too little and bodies that are none:
{len(held)} of {len(tried)} tests held in every attempt. Bodies were tried 10,000 times, the others
as often as their claims say (50 clean stops a method, 100 kills){_seldom(tried)}; what is counted
is what was tried. {_not_reached(report)}{apart}

{reports.source("faults")}
{grid(("", "what was tried and held", "of", "attempts"), rows)}"""


def _seldom(tried: list[Report]) -> str:
    """How many were tried less often, and how much less."""
    shares = [row["share"] for row in tried if row["share"] < 1]
    if not shares:
        return ""
    return (
        f", {len(shares)} of them less often, from {percent(min(shares), 0)} on, and never less "
        "often than CI does"
    )


def _not_reached(report: Report) -> str:
    left = sorted({_sentence({"test": name}).partition(" [")[0] for name in report["not_reached"]})
    return f"Not reached in the time: {'; '.join(left)}." if left else "All were reached."


def _parts(row: Report) -> tuple[str, str, str]:
    """File, name and parameters of a test."""
    found = TEST.fullmatch(row["test"])
    assert found is not None, row["test"]
    return found["file"], found["name"], found["of"] or ""


def _sentence(row: Report) -> str:
    file, name, of = _parts(row)
    return f"{file}: {name.replace('_', ' ')}{f' [{of}]' if of else ''}"


def _row(tests: list[Report]) -> tuple[str, ...]:
    file, name, _ = _parts(tests[0])
    kinds = [of for _, _, of in map(_parts, tests) if of]
    named = ", ".join(kinds) if len(kinds) <= 8 else f"{len(kinds)} cases"
    return file, name.replace("_", " "), named, f"{sum(row['attempts'] for row in tests):,}"
