"""`hplb loss` on a tiny model: what a plan's budgets cost, beside dense attention."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from executor.cli.evaluate import app
from executor.evaluation.loaded import load
from executor.evaluation.scoring import surprise
from executor.evaluation.texts import windows
from executor.inference.budget_policy import BudgetPolicy
from solver import plan
from solver.budgets.options import BudgetOptions
from solver.plans import Plan
from tests.executor.evaluation.builders import save_tiny, tiny_profile

CONTEXT = 128


def planned(tokens: int, context: int = CONTEXT) -> Plan:
    budget = BudgetOptions(policy="uniform", tokens=tokens)
    asked = {"gpus": 2, "context_tokens": context, "block_tokens": 16, "budget": budget}
    return plan(tiny_profile(), method="contiguous", **asked)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    save_tiny(made)
    (made / "text.txt").write_text("the grass is green . Ann works with the sky . " * 40)
    return made


def run(folder: Path, made: Plan, *more: str) -> Result:
    made.save(folder / "plan.json")
    asked = ["loss", "--plan", str(folder / "plan.json"), "--model", str(folder / "model")]
    return CliRunner().invoke(app, [*asked, "--text", str(folder / "text.txt"), *more])


def test_losses_are_those_of_the_plans_budgets_and_of_dense_attention(folder: Path) -> None:
    made = planned(32)
    ran = run(folder, made, "--windows", "2", "--json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    loaded = load(str(folder / "model"))
    texts = windows(folder / "text.txt", loaded.tokenizer, CONTEXT, 2)
    for field, policy in (("loss", BudgetPolicy.of_plan(made)), ("dense_loss", None)):
        nats = [surprise(loaded.model, ids, 64, policy, 16)[0] for ids in texts]
        assert found[field] == pytest.approx(sum(nats) / 2, rel=1e-5)
    assert found["over_dense"] == pytest.approx(found["loss"] - found["dense_loss"])
    assert found["weights_sha256"] == loaded.weights_sha256
    assert (found["windows"], found["scored_tokens"], found["context_tokens"]) == (2, 64, CONTEXT)
    # Eight query blocks: one list of one piece and seven of two, of 36 in all.
    assert found["density"] == pytest.approx(15 / 36)


def test_dense_budgets_cost_nothing(folder: Path) -> None:
    ran = run(folder, planned(CONTEXT))
    assert ran.exit_code == 0, ran.output
    assert "at 100.0 % of dense attention's pairs" in ran.stdout
    assert abs(json.loads(run(folder, planned(CONTEXT), "--json").stdout)["over_dense"]) < 1e-5


def test_what_is_wrong_is_said(folder: Path) -> None:
    ran = run(folder, planned(32, 4096))
    assert ran.exit_code == 2
    assert "plan: 4096 tokens are beyond the model's 256 positions" in ran.stderr
    (folder / "plan.json").write_text("{}")
    ran = CliRunner().invoke(
        app, ["loss", "--plan", str(folder / "plan.json"), "--model", "reference"]
    )
    assert ran.exit_code == 2
    assert "plan.json: " in ran.stderr
