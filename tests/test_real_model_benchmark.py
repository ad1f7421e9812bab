"""benchmarks/real_model: rows kept and restored, figures paired by document, equal work."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.real_model import __main__ as command
from benchmarks.real_model.documents import Document
from benchmarks.real_model.policies import BUDGETS, Size, chosen, share_of
from benchmarks.real_model.rows import Row, restore
from benchmarks.real_model.summary import summarise
from executor.evaluation.density import Setting
from executor.evaluation.journal import Journal
from executor.inference.budget_policy import BudgetPolicy
from profiles.sizes import causal_pieces
from solver.plans import PromisedLoss
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


def test_budgets_of_more_pairs_than_uniforms_are_left_out() -> None:
    rows = [row("dense", name, 1.0, 1.0, 1.0) for name in ("a", "b")]
    rows += [row(policy, "a", 1.5) for policy in ("uniform", "max_min", "top_p")]
    more = [row(policy, "b", 1.1, pairs=0.18) for policy in ("max_min", "top_p")]
    found = summarise([*rows, row("uniform", "b", 1.3), *more])
    documents = {line["policy"]: line["documents"] for line in found["lines"]}
    assert documents == {"uniform": 2, "max_min": 1, "top_p": 2}
    assert len(found["rows"]) == 7


def test_tries_stand_beside_what_they_are_tried_on_and_promises_beside_themselves() -> None:
    rows = [row("dense", name, 1.0, 1.0, 1.0) for name in ("a", "b")]
    for policy, nats in (("uniform", 1.6), ("least_error_model", 1.5), ("floor", 1.4)):
        rows += [row(policy, "a", nats), row(policy, "b", nats)]
    rows += [row("promised", "a", 1.03, 0.02), row("promised", "b", 1.01, 0.02)]
    promised = PromisedLoss(bound=0.02, nats=0.015, low=0.01, high=0.02)
    found = summarise(rows, {0.02: promised})
    assert {line["policy"] for line in found["lines"]} == {"uniform", "least_error_model"}
    [tried] = found["tries"]
    assert tried["over_least_error_model"] == pytest.approx(-0.1)
    assert tried["alone_at_pairs"] == pytest.approx(0.5)
    [kept] = found["promises"]
    assert (kept["loss"], kept["promise"]) == (pytest.approx(0.02), promised.model_dump())
    assert kept["kinds"] == {"code": pytest.approx(0.02)}


def _run(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> None:
    monkeypatch.setattr(command, "folder_of", lambda _: folder)
    monkeypatch.setattr(command, "weights_of", lambda _: [])
    files = ["--rows", str(folder / "rows.jsonl"), "--json", str(folder / "report.json")]
    monkeypatch.setattr("sys.argv", ["real_model", *files, *flags])
    command.main()


def test_an_unknown_stage_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _run(monkeypatch, tmp_path, "--stages", "2048,nosuch")
    assert "'nosuch' is unknown; known are 2048, peers, " in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()


def test_no_time_for_a_row_ends_with_what_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "load", lambda _: None)
    monkeypatch.setattr(command, "held_out", lambda _: [Document("code", "a", "")] * 24)
    _run(monkeypatch, tmp_path, "--seconds", "0")
    said = capsys.readouterr().err
    assert "time is up: 0 of " in said
    assert "no row of a policy is there yet" in said
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize("name", [name for name in BUDGETS if name != "streaming_llm"])
@pytest.mark.parametrize("size", [Size(64, 64), Size(64, 16)])
def test_every_policy_computes_at_most_uniforms_pairs(name: str, size: Size) -> None:
    layers, heads = 12, 8
    curves = random_curves(0, layers, heads)
    form = curves.model_copy(update={"selected_recovery": curves.recovery})
    profile = profile_of(form.model_dump(), layers, heads)
    made = chosen(name, profile, size, 2048, 5)
    policy = made.policy
    assert isinstance(policy, BudgetPolicy)
    budgets = np.array(policy.tokens)
    setting = Setting(profile, 2048, size.block, [2048], 64, piece_tokens=size.piece)
    pairs = setting.tiles(budgets) * size.block * size.piece
    allowed = layers * heads * 64 * 64 * causal_pieces(np.array(5), 32)
    assert 0.9 * allowed <= pairs <= allowed
    assert made.pairs == pytest.approx(pairs / (layers * heads * 64 * 64 * 32 * 33 / 2))
    assert share_of(5, 2048) == pytest.approx(allowed / (layers * heads * 64 * 64 * 32 * 33 / 2))
