"""What every part of the search buys, what left it, and `place` beside EPLB's packing."""

from benchmarks.results_page.reports import Report, Reports, grid, percent, span

FAMILIES = {
    "free, copies priced": "whole heads",
    "equal, copies priced": "equal counts",
    "divided, copies priced": "divided",
    "free, copies free": "whole heads, copies free",
}
GONE = ("partition", "enumeration", "cheapest divisions", "transfers", "covering")
OF_DIVIDED = ("components", "retreat")
"""Parts that only divided heads meet: what whole ones differ by without them is noise."""


def section(reports: Reports) -> str:
    return f"""\
## The search, part by part

{_parts(reports)}
{_gone(reports)}
{_eplb(reports)}
"""


def _parts(reports: Reports) -> str:
    report = reports["ablation"]
    noise = max(
        row["worst_percent"]
        for row in report["summary"]
        if row["without"] in OF_DIVIDED and not row["family"].startswith("divided")
    )
    return f"""\
### One part taken out at a time

The makespan without a part over the whole search's, mean and worst in %, and in brackets how far
the plans are from their bounds on average (the first row: the whole search). The twelve real
profiles, 8 GPUs, 131,072 tokens, both deployments, {report["time_limit_s"]:g} s a plan; each plan
once by the whole search and once without each part, in turn. Worst cases of up to {noise:.1f} %
may be noise: whole heads differ by as much without a part that only divided ones meet. What pays on
none of these stays for other reasons: CP-SAT for unlike devices and several workloads, MULTIFIT
where a device gets two to four items, subset sums for partitions, `retreat` for fewer divisions.

{reports.source("ablation")}
{grid(("without", *FAMILIES.values()), _rows(report, None))}"""


def _gone(reports: Reports) -> str:
    report = reports["ablation_before"]
    return f"""\
### What left the search

The same, of the search as it was at commit {report["commit"]}, before its number partitioning
(1,174 lines), program for the cheapest divisions and transfers were taken out, its enumeration
kept for several workloads alone, and its coverings built anew on the configuration program.

{reports.source("ablation_before")}
{grid(("without", *FAMILIES.values()), _rows(report, GONE))}"""


def _rows(report: Report, only: tuple[str, ...] | None) -> list[tuple[str, ...]]:
    found: dict[str, dict[str, str]] = {}
    for row in report["summary"]:
        told = f"{row['mean_percent']:+.3f} / {row['worst_percent']:+.2f}"
        gap = f"({row['mean_gap_percent']:.2f})"
        whole = row["without"] == "everything"
        found.setdefault(row["without"], {})[row["family"]] = gap if whole else f"{told} {gap}"
    wanted = found if only is None else ("everything", *only)
    return [
        ("nothing" if part == "everything" else part, *(found[part][f] for f in FAMILIES))
        for part in wanted
    ]


def _eplb(reports: Reports) -> str:
    report = reports["beside_eplb"]
    rows = [
        (
            row["costs"],
            f"{row['heads']} on {row['devices']}",
            f"{row['mean_ratio']:.4f} ({span([row['best_ratio'], row['worst_ratio']], '.4f')})",
            percent(row["worst_gap"]),
            f"{row['eplb_s']:.3f}",
            f"{row['place_s']:.3f}",
        )
        for row in report["rows"]
    ]
    heads = ("costs", "heads", "makespan / EPLB's", "gap at most", "s, EPLB", "s, place")
    worse = sum(row["worst_ratio"] > 1 + 1e-12 for row in report["rows"])
    return f"""\
### Beside EPLB's balanced packing

`place(costs, devices, equal_counts=True)` on random costs of {report["layers"]} layers,
{report["draws"]} draws each, beside longest first into packs of equal counts; no replicas. A larger
makespan than EPLB's: in {worse} of {len(rows)}. EPLB is quicker by far: it proves nothing and
searches nothing.

{reports.source("beside_eplb")}
{grid(heads, rows)}"""
