"""benchmarks/real_model: rows kept and restored, figures paired by document, equal work."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.real_model.policies import BUDGETS, Size, chosen, share_of
from benchmarks.real_model.rows import Row, restore
from benchmarks.real_model.summary import summarise
from executor.evaluation.density import Setting
from executor.evaluation.journal import Journal
from executor.inference.budget_policy import BudgetPolicy
from profiles.sizes import causal_pieces
from tests.solver.budgets.builders import profile_of, random_curves

BELONGS: dict[str, object] = {"weights_sha256": "0" * 64}


def row(policy: str, document: str, nats: float, share: float = 0.1761, pairs: float = 0.17) -> Row:
    size = "" if policy == "dense" else "64x16"
    return Row(2048, size, policy, share, "", document, "code", nats, pairs, 1.0)


def test_rows_are_restored_from_a_report_on_the_same_model(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "rows.jsonl", BELONGS, Row)
    for made in (row("dense", "a", 1.0), row("uniform", "a", 1.5), row("max_min", "a", 1.7)):
        journal.add(made)
    report = tmp_path / "report.json"
    found = summarise(list(journal.rows.values()))
    report.write_text(json.dumps({"belongs_to": BELONGS, **found}))
    other = Journal.open(tmp_path / "elsewhere.jsonl", BELONGS, Row)
    restore(other, report, BELONGS)
    assert Journal.open(other.path, BELONGS, Row).rows == journal.rows
    stranger = Journal.open(tmp_path / "stranger.jsonl", {"weights_sha256": "1" * 64}, Row)
    restore(stranger, report, {"weights_sha256": "1" * 64})
    assert stranger.rows == {}


def test_losses_are_paired_by_document() -> None:
    dense = {"a": 1.0, "b": 2.0, "c": 3.0}
    rows = [row("dense", name, nats, 1.0, 1.0) for name, nats in dense.items()]
    rows += [row("uniform", "a", 1.31), row("uniform", "b", 2.29), row("uniform", "c", 3.9)]
    rows += [row("max_min", "a", 1.21), row("max_min", "b", 2.09)]  # not "c" yet
    found = summarise(rows)
    assert found["summary"]["documents"] == 3
    loss = found["summary"]["loss"]["2048"]["0.2"]
    assert loss == {"uniform": pytest.approx(0.5), "max_min": pytest.approx(0.15)}
    line = next(line for line in found["lines"] if line["policy"] == "max_min")
    assert line["over_uniform"] == pytest.approx(-0.15)
    assert line["of_uniform"] == pytest.approx(0.5)
    # Student's t of two documents, 12.7 standard errors.
    assert line["over_uniform_half"] == pytest.approx(12.706 * 0.05, rel=1e-3)


def test_there_is_no_ratio_to_what_may_be_no_loss() -> None:
    rows = [row("dense", name, 1.0, 1.0, 1.0) for name in ("a", "b")]
    rows += [row("uniform", "a", 1.02), row("uniform", "b", 0.99)]
    rows += [row("max_min", "a", 1.01), row("max_min", "b", 0.98)]
    line = next(line for line in summarise(rows)["lines"] if line["policy"] == "max_min")
    assert line["over_uniform"] == pytest.approx(-0.01)
    assert "of_uniform" not in line


def test_budgets_of_an_older_profile_are_not_mixed_in() -> None:
    rows = [row("dense", name, 1.0, 1.0, 1.0) for name in ("a", "b")]
    rows += [row("max_min", "a", 1.5), row("max_min", "b", 1.5)]
    rows.append(replace(row("max_min", "a", 1.2), setup="anew"))
    [line] = summarise(rows)["lines"]
    assert (line["documents"], line["loss"]) == (1, pytest.approx(0.2))


@pytest.mark.parametrize("name", [name for name in BUDGETS if name != "streaming_llm"])
@pytest.mark.parametrize("size", [Size(64, 64), Size(64, 16)])
def test_every_policy_computes_at_most_uniforms_pairs(name: str, size: Size) -> None:
    curves = random_curves(0)
    form = curves.model_copy(update={"selected_recovery": curves.recovery})
    profile = profile_of(form.model_dump(), 2, 8)
    policy = chosen(name, profile, size, 2048, 5).policy
    assert isinstance(policy, BudgetPolicy)
    budgets = np.array(policy.tokens)
    setting = Setting(profile, 2048, size.block, [2048], 64, piece_tokens=size.piece)
    pairs = setting.tiles(budgets) * size.block * size.piece
    allowed = 16 * 64 * 64 * causal_pieces(np.array(5), 32)
    assert 0.9 * allowed <= pairs <= allowed
    assert share_of(5, 2048) == pytest.approx(allowed / (16 * 64 * 64 * 32 * 33 / 2))
