"""Table 1 of S-HPLB (arXiv 2603.10353) for these methods: a line each, a column a task."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from executor.evaluation.bootstrap import Interval
from executor.evaluation.generation import Generated
from executor.evaluation.lines import Line

SHORT = {
    "niah_single_1": "NS1",
    "niah_single_2": "NS2",
    "niah_single_3": "NS3",
    "niah_multikey_1": "MK1",
    "niah_multikey_2": "MK2",
    "niah_multikey_3": "MK3",
    "niah_multivalue": "MV",
    "niah_multiquery": "MQ",
    "vt": "VT",
    "cwe": "CWE",
    "fwe": "FWE",
    "qa_1": "QA1",
    "qa_2": "QA2",
}
"""RULER's tasks as the paper's Table 1 calls them."""


def score_table(lines: Sequence[Line]) -> Table:
    """Scores in percent by task, of lines of one context and density."""
    table = _table(_title(lines), "method")
    for task in lines[0].tasks:
        table.add_column(SHORT[task], justify="right", no_wrap=True)
    table.add_column("average", justify="right", no_wrap=True)
    for line in lines:
        scores = [f"{100 * value:.0f}" for value in line.tasks.values()]
        table.add_row(line.method, *scores, _percent(line.average))
    return table


def cost_table(lines: Sequence[Line]) -> Table:
    """What the same lines computed, their differences, perplexity and least recovery."""
    table = _table(None, "method")
    columns = ("blocks %", "makespan %", "- dense", "- max_min", "perplexity", "least %")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.method,
            f"{100 * line.computed:.2f}",
            f"{100 * line.makespan:.1f}",
            _percent(line.to_dense),
            _percent(line.to_reference),
            f"{line.perplexity.value:.3f}",
            "" if line.least_recovery is None else f"{100 * line.least_recovery:.1f}",
        )
    return table


def generated_table(found: Sequence[Generated]) -> Table:
    """Teacher-forced scores beside generated ones."""
    table = _table("the same samples by generation", "method")
    for column in ("density", "samples", "forced %", "generated %", "alike %"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in found:
        shares = (each.teacher_forced, each.generated, each.alike)
        density = "" if each.density is None else f"{each.density:g}"
        percents = [f"{100 * share:.1f}" for share in shares]
        table.add_row(each.method, density, str(each.samples), *percents)
    return table


def by_setting(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines of one context and density together, dense attention at the head of each."""
    groups = []
    for context in dict.fromkeys(line.context for line in lines):
        here = [line for line in lines if line.context == context]
        dense = [line for line in here if line.density is None]
        densities = dict.fromkeys(line.density for line in here if line.density is not None)
        sparse = [[line for line in here if line.density == density] for density in densities]
        groups += [[*dense, *each] for each in sparse or [[]]]
    return groups


def _title(lines: Sequence[Line]) -> str:
    last = lines[-1]
    at = "" if last.density is None else f", at most {100 * last.density:g} % of dense's blocks"
    spread = "one sample a task" if last.average.wider is None else "± at 95 %"
    return f"{last.context:,} tokens{at}: score in percent, {spread}"


def _table(title: str | None, first: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    table.add_column(first, no_wrap=True)
    return table


def _percent(found: Interval | None) -> str:
    """The value and the wider side of its interval; the results file has both ends."""
    if found is None:
        return ""
    wider = "" if found.wider is None else f" ±{100 * found.wider:.1f}"
    return f"{100 * found.value:.1f}{wider}"
