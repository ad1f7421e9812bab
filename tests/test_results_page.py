"""docs/results.md and the README's table say what the results files say, figure by figure."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.markdown import NoRegionError
from benchmarks.results_page.__main__ import PAGE, README, ROOT, documents
from benchmarks.results_page.reports import STALE, Reports, UntrueError

FIGURES = {
    "placement": "over_mean",
    "slots": "over_mean",
    "partition": "seconds",
    "speed": "median",
    "ablation": "mean_percent",
    "ablation_before": "mean_percent",
    "beside_eplb": "mean_ratio",
    "deadlines": "median",
    "drift": "met",
    "cost_model_h200": "mean_error_percent",
    "cost_model_cpu": "mean_error_percent",
    "cpu_attention": "median",
    "cpu_selected": "median",
    "cpu_flex": "first_call_s",
    "decode_cpu": "median",
    "engines": "median",
    "serving": "median",
    "replan": "median",
    "measuring": "median",
    "batch_steps": "ratio",
    "schedule": "worst",
    "selection": "oracle",
    "rehearsal": "registers",
    "quality": "value",
    "real_model": "loss",
    "cross_head": "median",
    "ruler": "value",
    "reference_dense": "niah_multikey_3",
    "selection_pooled": "value",
    "selection_sampled": "value",
    "floor_32": "value",
    "pieces_reference": "loss_over_dense",
    "pieces_smollm2": "loss_over_dense",
    "pieces_smollm2_rows8": "loss_over_dense",
    "budgets": "held_out_least",
    "ingest": "p99",
    "faults": "attempts",
}
"""A figure that the page shows of each file, by its key there."""


def twice(found: Any, key: str) -> Any:
    """`found` with every number under `key` doubled."""
    if isinstance(found, list):
        return [twice(each, key) for each in found]
    if not isinstance(found, dict):
        return found
    return {
        name: 2 * value if name == key and isinstance(value, int | float) else twice(value, key)
        for name, value in found.items()
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One with the README and the results files alone."""
    shutil.copy(ROOT / README, tmp_path / README)
    shutil.copytree(ROOT / "benchmarks/results", tmp_path / "benchmarks/results")
    return tmp_path


def test_this_repository_shows_what_its_results_files_say() -> None:
    """Run `python -m benchmarks.results_page` where this fails."""
    stale = [path for path, text in documents(ROOT).items() if path.read_text() != text]
    assert stale == []


def test_no_file_that_the_page_shows_is_left_out_here() -> None:
    page = (ROOT / PAGE).read_text()
    shown = re.findall(r"\(\.\./benchmarks/results/(\w+)\.json\)", page)
    assert set(shown) == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_that_changes_changes_the_page(name: str, checkout: Path) -> None:
    before = documents(checkout)[checkout / PAGE]
    path = checkout / f"benchmarks/results/{name}.json"
    path.write_text(json.dumps(twice(json.loads(path.read_text()), FIGURES[name])))
    assert documents(checkout)[checkout / PAGE] != before


def test_the_readmes_table_follows_too_and_has_five_rows(checkout: Path) -> None:
    path = checkout / "benchmarks/results/placement.json"
    path.write_text(json.dumps(twice(json.loads(path.read_text()), "over_mean")))
    changed = documents(checkout)[checkout / README].splitlines()
    lines = (ROOT / README).read_text().splitlines()
    different = [line for line, now in zip(lines, changed, strict=True) if line != now]
    assert len(different) == 5
    assert all(line.startswith("| ") for line in different)


def test_every_table_says_what_made_it_and_on_what() -> None:
    """Between two headings: the profile that is shipped, or a file, its command, its hardware."""
    source = (
        r"^- \[(\w+\.json)\]\(\.\./benchmarks/results/\1\): `[^`]+`.*; .*(cores|CPU|not recorded)"
    )
    sections = re.split(r"^#+ ", (ROOT / PAGE).read_text(), flags=re.MULTILINE)
    with_tables = [section for section in sections if "\n| " in section]
    assert len(with_tables) > 10
    for section in with_tables:
        shipped = "profiles/catalog/models/reference-model.json" in section
        assert shipped or re.search(source, section, re.MULTILINE), section[:80]


def test_figures_of_code_that_is_not_todays_are_called_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports = Reports(ROOT / "benchmarks" / "results")
    assert "stale" not in reports.source("rehearsal")
    monkeypatch.setitem(STALE, "rehearsal", "the kernels have changed since")
    assert reports.source("rehearsal").endswith("**stale**: the kernels have changed since.\n")


def test_what_computes_more_pairs_than_uniform_says_how_many(checkout: Path) -> None:
    path = checkout / "benchmarks/results/real_model.json"
    found = json.loads(path.read_text())
    (line,) = (
        line
        for line in found["lines"]
        if (line["size"], line["share"], line["policy"]) == ("64x64", "0.3", "max_min")
    )
    line["pairs"] = 0.4
    path.write_text(json.dumps(found))
    assert "40.0 % of pairs" not in (ROOT / PAGE).read_text()
    assert documents(checkout)[checkout / PAGE].count("40.0 % of pairs") == 1


def test_what_the_figures_no_longer_bear_out_is_an_error(checkout: Path) -> None:
    path = checkout / "benchmarks/results/quality.json"
    found = json.loads(path.read_text())
    for run in found["runs"]:
        for line in run["lines"]:
            if line["method"] == "uniform":
                line["to_reference"]["high"] = -0.01
    path.write_text(json.dumps(found))
    with pytest.raises(UntrueError, match="uniform top-k"):
        documents(checkout)


def test_a_readme_without_the_region_is_an_error(checkout: Path) -> None:
    (checkout / README).write_text("# Nothing\n")
    with pytest.raises(NoRegionError, match=r"README\.md"):
        documents(checkout)


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len((ROOT / README).read_bytes()) <= 6 * 1024
