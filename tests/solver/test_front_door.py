"""What a user of `solver` may import, and the notebook that uses all of it."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import solver
from profiles import load_profile
from solver import Plan, PlanRequest, compare, place, plan, verify
from solver.report.comparison import COLUMNS, METHODS, Comparison

ROOT = Path(__file__).resolve().parents[2]
EXPORTED = ["Plan", "PlanRequest", "compare", "place", "plan", "verify"]


def test_exactly_these_names_are_exported() -> None:
    assert sorted(solver.__all__) == EXPORTED
    assert set(EXPORTED) <= set(dir(solver))
    for name in EXPORTED:
        assert getattr(solver, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'solve'"):
        _ = solver.solve  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", EXPORTED)
def test_no_module_takes_the_place_of_a_name(name: str) -> None:
    """A submodule called like a function replaces it in the package as soon as it is imported."""
    assert not (ROOT / "solver" / f"{name}.py").exists()
    assert not (ROOT / "solver" / name).exists()


@pytest.mark.slow
def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'ortools', 'pulp', 'scipy', 'typer', 'rich', 'matplotlib', 'torch'}"
    script = f"import sys, solver; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


def test_the_notebook(tmp_path: Path) -> None:
    profile = load_profile("llama-3.1-8b-synthetic")
    p = plan(profile, gpus=8, context_tokens=131_072, divisible=True, time_limit_s=1)
    assert isinstance(p, Plan)
    assert 0 < p.lower_bound_s <= p.makespan_s
    assert p.gap == pytest.approx(1 - p.lower_bound_s / p.makespan_s)
    assert 0 <= p.bubble_ratio < 0.05
    heads = profile.architecture.query_heads
    assert p.shares.shape == (profile.architecture.layers, heads, 8)
    assert p.shares[3].sum(axis=1) == pytest.approx(np.ones(heads))
    assert verify(p).ok
    p.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == p
    request = PlanRequest(
        profile=profile,
        gpus=8,
        context_tokens=131_072,
        placement={"divisible": True},
        time_limit_s=1,
    )
    assert [step.context_tokens for step in request.steps] == [p.workload.context_tokens]


def test_costs_alone_are_placed() -> None:
    costs = np.random.default_rng(0).lognormal(size=(4, 32))
    found = place(costs, devices=8, time_limit_s=1)
    assert found.shares.shape == (4, 32, 8)
    assert found.makespan_s >= costs.max(axis=1).sum() * (1 - 1e-12)
    assert found.gap < 0.05


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare("llama-3.1-8b-synthetic", gpus=[4], time_limit_s=0.02)


def test_a_comparison_prints_as_a_table(comparison: Comparison) -> None:
    title, header, *lines = str(comparison).splitlines()
    assert title.startswith("llama-3.1-8b-synthetic (synthetic), prefill of 1 x 131,072 tokens")
    assert all(column in header for column in COLUMNS)
    rows = [line.split() for line in lines if not line.startswith("note: ")]
    problems = ["4 x disaggregated", "4 x tensor_parallel"]
    expected = [[*problem.split(), method] for problem in problems for method in METHODS]
    assert [row[:4] for row in rows] == expected
    assert all(float(row[5]) >= 1 for row in rows), "of the best bound of its problem"
    assert repr(comparison) == str(comparison)


class Table(HTMLParser):
    """The texts of a table's cells, row by row; every tag that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_a_comparison_draws_itself_in_a_notebook(comparison: Comparison) -> None:
    table = Table()
    table.feed(comparison._repr_html_())
    table.close()
    assert not table.open
    header, *rows = table.rows
    assert tuple(header) == COLUMNS
    assert [row[1] for row in rows] == list(METHODS) * 2
    assert comparison.picture() in comparison._repr_html_()
    printed = str(comparison).splitlines()[2 : 2 + len(rows)]
    for row, line in zip(rows, printed, strict=True):
        assert " ".join(row).split() == line.split()


def test_what_a_profile_is_called_is_text_and_not_markup() -> None:
    odd = load_profile("llama-3.1-8b-synthetic").model_copy(update={"name": "<b>&</b>"})
    drawn = compare(odd, gpus=[2], methods=["greedy"], deployments=["disaggregated"])
    assert "<b>" not in drawn._repr_html_()
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in drawn._repr_html_()
