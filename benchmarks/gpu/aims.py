"""What is aimed at, as ratios and as shares of what the GPU at hand reaches by itself.

A figure measured on one card is no aim for another, so that speeds are compared with `ceilings` of
the same run: bytes a second of a copy, FLOP/s of a matrix product. The shares come from figures
published for an H200, whose copy moves 4.3 TB/s and whose 8192^3 bf16 product reaches 790 TFLOP/s:

    dense causal prefill         450 of 790 TFLOP/s = 0.57   Triton without warp specialisation
    flashinfer#5326, blocks 64   317 of 790 TFLOP/s = 0.40   FlashInfer's bf16 there
    decode at batch 16 and more  4.0 of 4.3 TB/s    = 0.93   FlashAttention-3 in engines
    decode, batch 1, 8K          20 us for 33.6 MB is 1.68 of 4.3 TB/s = 0.39   the same
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.gpu.rows import Row, Sections

Ceiling = Literal["copy", "product"]
CEILINGS: dict[Ceiling, tuple[str, str]] = {
    "copy": ("copy", "bytes_per_s"),
    "product": ("matrix product", "tflops"),
}
"""Case of section `ceilings` and its column."""


@dataclass(frozen=True)
class Verdict:
    """How many of the rows that an aim applies to meet it, and the worst and best of them."""

    met: int
    rows: int
    worst: float
    best: float


@dataclass(frozen=True)
class Aim:
    """`column` of a section's rows where `applies`, at least or at most `bound`.

    `of`: the column is divided by this ceiling of the same GPU first.
    """

    says: str
    section: str
    column: str
    bound: float
    at_least: bool = True
    applies: Callable[[Row], bool] = lambda _: True
    of: Ceiling | None = None

    def verdict(self, sections: Sections) -> Verdict | None:
        """None where nothing that the aim speaks of was measured."""
        rows = sections.get(self.section, {}).get("rows", [])
        unit = 1.0 if self.of is None else ceiling(sections, self.of)
        if unit is None:
            return None
        values = [
            row[self.column] / unit for row in rows if self.column in row and self.applies(row)
        ]
        if not values:
            return None
        met = sum(v >= self.bound if self.at_least else v <= self.bound for v in values)
        worst, best = sorted((min(values), max(values)), reverse=not self.at_least)
        return Verdict(met, len(values), worst, best)


def ceiling(sections: Sections, of: Ceiling) -> float | None:
    """Bytes a second of this GPU's copy, or TFLOP/s of its matrix product."""
    case, column = CEILINGS[of]
    for row in sections.get("ceilings", {}).get("rows", []):
        if row["case"] == case and column in row:
            return float(row[column])
    return None


def _long(row: Row) -> bool:
    return bool(row["tokens"] >= 32_768)


def _square(row: Row) -> bool:
    return bool(row["block"] == row["piece"])


def _sampled(row: Row) -> bool:
    return _long(row) and bool(row["pattern"] == "sampled") and _square(row)


def _sampled_pieces(row: Row) -> bool:
    return _long(row) and bool(row["pattern"] == "sampled") and not _square(row)


def _two_rows(row: Row) -> bool:
    return _long(row) and bool(row["pattern"] == "two sampled rows")


def _divided(row: Row) -> bool:
    return bool(row["scheme"] == "adaptive divided")


AIMS = (
    Aim(
        "dense causal >= 0.57 of the matrix product",
        "dense",
        "tflops",
        0.57,
        applies=_square,
        of="product",
    ),
    Aim("two heads a program over one <= 1.02", "dense", "over_alone", 1.02, False),
    Aim(
        "flashinfer#5326 shape, blocks of 64, > 0.40 of the matrix product",
        "uniform_sparse",
        "tflops",
        0.40,
        applies=lambda r: r["tokens"] == 109_632 and (r["block"], r["piece"]) == (64, 64),
        of="product",
    ),
    Aim(
        "pieces of 16 over blocks of 64 at equal pairs <= 1.10",
        "uniform_sparse",
        "over_blocks",
        1.1,
        False,
        applies=lambda r: (r["block"], r["piece"]) == (64, 16),
    ),
    Aim(
        "per-head budgets, share of ideal >= 0.90 at density 0.1 and more",
        "head_budgets",
        "share_of_ideal",
        0.9,
        applies=lambda r: r["density"] >= 0.1,
    ),
    Aim(
        "per-head budgets, share of ideal >= 0.85 at density 0.05 to 0.1",
        "head_budgets",
        "share_of_ideal",
        0.85,
        applies=lambda r: 0.05 <= r["density"] < 0.1,
    ),
    Aim(
        "per-head budgets, share of ideal at density below 0.05 (reported)",
        "head_budgets",
        "share_of_ideal",
        0.0,
        applies=lambda r: r["density"] < 0.05,
    ),
    Aim(
        "over FlexAttention, planning included, >= 1.3",
        "head_budgets-peers",
        "over_flex_planned",
        1.3,
    ),
    Aim("over FlexAttention, planning excluded", "head_budgets-peers", "over_flex", 1.0),
    Aim("makespan over bound (simulated) <= 1.03", "makespan", "simulated_over_bound", 1.03, False),
    Aim("skewed over equal budgets, per tile <= 1.03", "makespan", "skew_costs", 1.03, False),
    Aim("selection of attention saved <= 0.1, 32K up", "selection", "of_saved", 0.1, False, _long),
    Aim(
        "eight sampled rows of dense attention <= 0.1, 32K up",
        "selection",
        "of_dense",
        0.1,
        False,
        _sampled,
    ),
    Aim(
        "the same, pieces of 16",
        "selection",
        "of_dense",
        0.05,
        False,
        _sampled_pieces,
    ),
    Aim(
        "two sampled rows of dense attention <= 0.05, 32K up",
        "selection",
        "of_dense",
        0.05,
        False,
        _two_rows,
    ),
    Aim("decode, share of proportional >= 0.85", "decode", "eighth_of_proportional", 0.85),
    Aim(
        "decode dense >= 0.93 of the copy's bytes/s at batch 16 and more",
        "decode",
        "dense_bytes_per_s",
        0.93,
        applies=lambda r: r["batch"] >= 16,
        of="copy",
    ),
    Aim(
        "decode dense, batch 1, 8K, >= 0.39 of the copy's bytes/s",
        "decode",
        "dense_bytes_per_s",
        0.39,
        applies=lambda r: (r["batch"], r["tokens"]) == (1, 8192),
        of="copy",
    ),
    Aim(
        "8 devices, divided, over dense >= 6 at 128K",
        "headline",
        "over_dense",
        6.0,
        applies=lambda r: _divided(r) and r["tokens"] == 131_072,
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


def table(sections: Sections) -> list[str]:
    """Every aim's verdict, as lines of a Markdown table."""
    lines = ["| aim | met | found |", "|---|---|---|"]
    for aim in AIMS:
        found = aim.verdict(sections)
        told = "not measured | |"
        if found:
            told = f"{found.met} of {found.rows} | {found.worst:.4g} to {found.best:.4g} |"
        lines.append(f"| {aim.says} | {told}")
    return lines
