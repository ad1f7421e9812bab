"""What results files say, as the Markdown between two comments in README.md and docs/gpu.md."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.aims import AIMS, Aim, ceiling
from benchmarks.gpu.rows import Row, has_figures
from benchmarks.gpu.summary import failures, late
from benchmarks.gpu_results.fitting import Error
from benchmarks.gpu_results.reading import FOLDER, Results
from benchmarks.markdown import table
from profiles.cost.rates import Rates
from profiles.cost.work import FEATURES

WORDS = ("met", "missed", "not measured")
NOTHING = f"**No GPU has run this code yet**: `{FOLDER}` holds no results file of one."


@dataclass(frozen=True)
class Published:
    """A GPU type's results, the rates fitted to them and how far off those are."""

    results: Results
    rates: Sequence[Rates]
    errors: Sequence[Error]


def short(published: Mapping[str, Published]) -> str:
    """A few lines for the README."""
    lines = []
    for each in published.values():
        results = each.results
        found = [verdict(aim, results)[0] for aim in AIMS]
        told = ", ".join(f"{found.count(word)} {word}" for word in WORDS)
        lines.append(f"- {_about(results, FOLDER)}: {_checks(results)}; aims: {told}.")
        dense = _dense_figures(results)
        if dense:
            tokens = max(dense)
            cells = ", ".join(f"{cell} {name}" for name, cell in dense[tokens].items())
            lines.append(f"  Dense causal prefill of {tokens:,} tokens, TFLOP/s: {cells}.")
    lines.append("")
    lines.append("All of it, with spreads: [docs/gpu.md](docs/gpu.md).")
    return "\n".join(lines) if published else NOTHING


def full(published: Mapping[str, Published]) -> str:
    """Everything that is told of every GPU type."""
    return "\n\n".join(_told(each) for each in published.values()) or NOTHING


def verdict(aim: Aim, results: Results) -> tuple[str, str, str]:
    """met, missed, reported or not measured; how many rows meet the aim; the worst and the best."""
    found = aim.verdict(results.sections)
    if found is None:
        return "not measured", "", ""
    word = "met" if found.met == found.rows else "missed"
    if aim.bound == 0:
        word = "reported"
    return word, f"{found.met} of {found.rows}", f"{found.worst:.4g} to {found.best:.4g}"


def _told(each: Published) -> str:
    results = each.results
    sections = results.sections
    lines = [f"### {_about(results, '..' / FOLDER)}", ""]
    lines += [f"{_checks(results)}. {_ceilings(results)}", ""]
    lines += table(
        ("aim", "verdict", "rows that meet it", "worst to best"),
        [(aim.says, *verdict(aim, results)) for aim in AIMS],
    )
    dense = _dense_figures(results)
    names = list(dict.fromkeys(name for row in dense.values() for name in row))
    lines += _titled(
        "Dense causal prefill, TFLOP/s, median (10th to 90th percentile)",
        table(
            ("tokens", *names),
            [
                (f"{tokens:,}", *(dense[tokens].get(name, "") for name in names))
                for tokens in sorted(dense)
            ],
        ),
    )
    lines += _titled(
        "A layer on 8 devices: times over dense (slowest device over the mean), selection included",
        _headline(_figures(sections.get("headline", {}).get("rows", []))),
    )
    lines += _titled("Fitted rates, seconds a unit", _rates(each.rates))
    lines += [f"{rates.phase}: {rates.source}\n" for rates in each.rates]
    lines += _titled(
        "Error of the fitted rates, of the measured time",
        table(
            ("calls", "how many", "median", "worst", ""),
            [
                (e.kind, str(e.calls), f"{e.median:.1%}", f"{e.worst:.1%}", _fitted(e))
                for e in each.errors
            ],
        ),
    )
    return "\n".join(lines).rstrip()


def _fitted(error: Error) -> str:
    return "" if error.fitted else "not fitted"


def _about(results: Results, folder: Path) -> str:
    """Which GPU, when and what; `folder` is that of the files as the document sees it."""
    machine = results.machine
    files = ", ".join(f"[{name}]({folder / name})" for name in results.files)
    return (
        f"{machine['gpu']}, {machine['date'][:10]}, commit {machine['commit'][:7]}, "
        f"torch {machine['torch']}, Triton {machine['triton']} ({files})"
    )


def _checks(results: Results) -> str:
    rows = [
        row
        for name, section in results.sections.items()
        if name.startswith("check")
        for row in section["rows"]
    ]
    failed, unfinished = failures(rows), late(rows)
    told = f"checks: {len(rows) - len(failed) - len(unfinished)} fine, {len(failed)} failed, "
    told += f"{len(unfinished)} out of time"
    return told + (f" (failed: {', '.join(row['case'] for row in failed)})" if failed else "")


def _ceilings(results: Results) -> str:
    copy, product = ceiling(results.sections, "copy"), ceiling(results.sections, "product")
    told = [f"copy {copy / 1e12:.2f} TB/s"] if copy else []
    told += [f"8192^3 bf16 product {product:.0f} TFLOP/s"] if product else []
    return f"This GPU's own ceilings: {', '.join(told) or 'not measured'}.{_spread(results)}"


def _spread(results: Results) -> str:
    """Whether programs are spread over idle multiprocessors."""
    for row in _figures(results.sections.get("ceilings", {}).get("rows", [])):
        if "spread" in row:
            pairs = zip(row["programs"], row["distinct"], strict=True)
            told = ", ".join(f"{programs} on {places}" for programs, places in pairs)
            return f" Programs of a decode by multiprocessors they ran on: {told}."
    return ""


def _dense_figures(results: Results) -> dict[int, dict[str, str]]:
    """Cells of dense prefill by context and who computed it."""
    found: dict[int, dict[str, str]] = {}
    for section in ("dense", "dense-peers"):
        for row in _figures(results.sections.get(section, {}).get("rows", [])):
            if "tflops" not in row:
                continue
            found.setdefault(row["tokens"], {})[row.get("peer") or _ours(row)] = _speed(row)
    return found


def _ours(row: Row) -> str:
    """How our kernel computed a row of `dense`."""
    told = f"{row['block']}x{row['piece']}"
    told += f" in pages of {row['page']}" if row["page"] else ""
    return told + (" by two heads" if row["packed"] else "")


def _speed(row: Row) -> str:
    slow, fast = (row["tflops"] * row["s"] / row[name] for name in ("p90_s", "p10_s"))
    return f"{row['tflops']:.0f} ({slow:.0f} to {fast:.0f})"


def _headline(rows: Iterable[Row]) -> list[str]:
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        if "over_dense" not in row:
            continue
        profile = row["profile"] + (" (synthetic)" if row["synthetic"] else "")
        sizes = f"{row['block']}x{row['piece']}"
        key = (profile, f"{row['tokens']:,}", str(row["layer"]), sizes)
        cell = f"{row['over_dense']:.2f} ({row['over_mean']:.3f})"
        cells.setdefault(key, {})[row["scheme"]] = cell
    schemes = list(dict.fromkeys(name for those in cells.values() for name in those))
    return table(
        ("profile", "tokens", "layer", "block x piece", *schemes),
        [(*key, *(those.get(name, "") for name in schemes)) for key, those in cells.items()],
    )


def _rates(rates: Sequence[Rates]) -> list[str]:
    return table(
        ("feature", *(each.phase for each in rates)),
        [(name, *(_rate(each, name) for each in rates)) for name in FEATURES],
    )


def _rate(rates: Rates, name: str) -> str:
    spread = f" ± {rates.std[name]:.1g}" if rates.std else ""
    return f"{rates.seconds_per[name]:.3g}{spread}"


def _figures(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if has_figures(row)]


def _titled(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", "", *lines] if lines else []
