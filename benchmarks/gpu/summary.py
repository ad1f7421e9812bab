"""What was found beside what was aimed at, in a short table."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Aim:
    """`column` of a section's rows where `applies`, at least or at most `bound`."""

    says: str
    section: str
    column: str
    bound: float
    at_least: bool = True
    applies: Callable[[Row], bool] = lambda _: True

    def line(self, rows: Iterable[Row]) -> str:
        values = [row[self.column] for row in rows if self.column in row and self.applies(row)]
        if not values:
            return f"| {self.says} | not measured | |"
        met = sum(v >= self.bound if self.at_least else v <= self.bound for v in values)
        worst, best = sorted((min(values), max(values)), reverse=not self.at_least)
        return f"| {self.says} | {met} of {len(values)} | {worst:.4g} to {best:.4g} |"


def _long(row: Row) -> bool:
    return bool(row["tokens"] >= 32_768)


def _divided(row: Row) -> bool:
    return bool(row["scheme"] == "adaptive divided")


AIMS = (
    Aim("dense causal, TFLOP/s >= 450", "dense", "tflops", 450, True, lambda r: "peer" not in r),
    Aim(
        "flashinfer#5326 shape, blocks of 64, TFLOP/s > 317",
        "uniform_sparse",
        "tflops",
        317,
        True,
        lambda r: r["tokens"] == 109_632 and r["block"] == 64,
    ),
    Aim(
        "per-head budgets, share of ideal >= 0.90 at density 0.1 and more",
        "head_budgets",
        "share_of_ideal",
        0.9,
        True,
        lambda r: r["density"] >= 0.1,
    ),
    Aim(
        "per-head budgets, share of ideal >= 0.85 at density 0.05 to 0.1",
        "head_budgets",
        "share_of_ideal",
        0.85,
        True,
        lambda r: 0.05 <= r["density"] < 0.1,
    ),
    Aim(
        "per-head budgets, share of ideal at density below 0.05 (reported)",
        "head_budgets",
        "share_of_ideal",
        0.0,
        True,
        lambda r: r["density"] < 0.05,
    ),
    Aim("over FlexAttention, planning included, >= 1.3", "head_budgets", "over_flex_planned", 1.3),
    Aim("over FlexAttention, planning excluded", "head_budgets", "over_flex", 1.0),
    Aim("makespan over bound (simulated) <= 1.03", "makespan", "simulated_over_bound", 1.03, False),
    Aim("skewed over equal budgets, per tile <= 1.03", "makespan", "skew_costs", 1.03, False),
    Aim("selection of attention saved <= 0.1, 32K up", "selection", "of_saved", 0.1, False, _long),
    Aim("decode, share of proportional >= 0.85", "decode", "eighth_of_proportional", 0.85),
    Aim(
        "decode dense, bytes/s >= 4.0e12 at batch 16 and more",
        "decode",
        "dense_bytes_per_s",
        4.0e12,
        True,
        lambda r: r["batch"] >= 16,
    ),
    Aim(
        "decode dense, batch 1, 8K, seconds <= 20e-6",
        "decode",
        "dense_s",
        20e-6,
        False,
        lambda r: (r["batch"], r["tokens"]) == (1, 8192),
    ),
    Aim(
        "8 devices, divided, over dense >= 6 at 128K",
        "headline",
        "over_dense",
        6.0,
        True,
        lambda r: _divided(r) and r["tokens"] == 131_072,
    ),
    Aim(
        "8 devices, divided, slowest over mean <= 1.03",
        "headline",
        "over_mean",
        1.03,
        False,
        _divided,
    ),
    Aim(
        "the same, attention without selection",
        "headline",
        "attention_over_mean",
        1.03,
        False,
        _divided,
    ),
)


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
        lines += _aims(rows)
    for name, section in sections.items():
        trouble = [row["case"] for row in section["rows"] if "error" in row and "trace" in row]
        skips = sum("skipped" in row for row in section["rows"])
        if trouble or skips or not section["complete"]:
            state = "" if section["complete"] else ", ended early"
            lines.append(f"{name}: errors in {trouble[:5]}, {skips} skipped{state}")
    return "\n".join(lines)


def _aims(rows: dict[str, list[Row]]) -> list[str]:
    lines = ["| aim | met | found |", "|---|---|---|"]
    lines += [aim.line(rows.get(aim.section, [])) for aim in AIMS]
    return lines + headline(rows.get("headline", []))


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
