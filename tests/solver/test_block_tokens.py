"""Block sizes of a request: asked for, measured, or 64; and what older requests are called."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from profiles.measurement import Measurement
from profiles.model import ModelProfile
from solver.cli import app
from solver.report.explain import explain
from solver.request import PlanRequest
from tests.solver.budgets.builders import curved
from tests.solver.profiles import budgets_profile, faults, plan_of

runner = CliRunner()
BASE = {"profile": "x", "gpus": 2, "context_tokens": 1024}
MEASURED = Measurement(
    model="made up",
    weights_sha256="0" * 64,
    data_sha256="0" * 64,
    prompts={"a": 1},
    rows=1,
    seed=0,
    block_tokens=16,
    sink_tokens=16,
    local_tokens=16,
    versions={},
    seconds=0.0,
)


def settled(fields: dict[str, object]) -> PlanRequest:
    return PlanRequest.model_validate({**fields, "profile": curved()}).settled()


def measured() -> ModelProfile:
    return curved().model_copy(update={"measurement": MEASURED})


@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_plans_in_blocks_of_any_size_are_accepted(block: int, phase: str) -> None:
    plan = plan_of(budgets_profile(), block_tokens=block, phase=phase, context_tokens=1000)
    assert plan.workload.block_tokens == block
    assert faults(plan) == []
    assert all(b % block == 0 or b == 1000 for layer in plan.budgets for b in layer)


@pytest.mark.parametrize("block", [16, 32])
def test_divided_heads_are_cut_at_small_blocks(block: int) -> None:
    plan = plan_of(
        budgets_profile(),
        block_tokens=block,
        context_tokens=2048,
        gpus=3,
        placement={"divisible": True},
    )
    assert sum(plan.divisions) > 0
    assert faults(plan) == []


def test_the_measured_size_is_the_default_and_holds_for_every_workload() -> None:
    assert plan_of(curved()).workload.block_tokens == 64
    assert plan_of(measured()).workload.block_tokens == 16
    assert plan_of(measured(), block_tokens=32).workload.block_tokens == 32
    other = {"context_tokens": 512, "profile": curved()}
    both = plan_of(measured(), workloads=[{"context_tokens": 1024}, other])
    assert [both.workload.block_tokens, both.other_workloads[0].workload.block_tokens] == [16, 16]
    assert faults(both) == []


@pytest.mark.parametrize("block", [0, 8, 48, 256, -16, 64.5, "64"])
def test_other_sizes_are_refused(block: object) -> None:
    with pytest.raises(ValidationError, match="block_tokens"):
        PlanRequest.model_validate({**BASE, "block_tokens": block})


@pytest.mark.parametrize(
    ("fields", "digest"),
    [
        (
            {"profile": "x", "gpus": 4, "context_tokens": 1024},
            "4bd64ae3653abe1db55d79aff9deef8394c624cbecab7743f1b77c5450e5d43e",
        ),
        (
            {
                "profile": "x",
                "gpus": 2,
                "context_tokens": 8192,
                "phase": "decode",
                "budget": {"policy": "max_min", "tokens": 512, "scope": "model", "fill": True},
            },
            "53f05c8fc6c13f643300e5e6dd2b83ae1db83a87223d4f05f8a6230deb85c8b0",
        ),
        (
            {
                "profile": "x",
                "gpus": 2,
                "workloads": [{"context_tokens": 8192}, {"context_tokens": 64, "weight": 2}],
                "budget": {"policy": "elastic", "density": 0.5, "contexts": [64]},
            },
            "630919fa23ba57302e1eb8740ae3c18606f191ac6220cc06cd4624ae8f758c4f",
        ),
    ],
)
def test_requests_older_than_these_options_keep_their_digest(
    fields: dict[str, object], digest: str
) -> None:
    """Digests computed before the options were there."""
    request = settled(fields)
    named = ["p"] * len(request.steps), ["v"] * len(request.steps)
    assert request.digest(*named) == digest
    changed = [
        {**fields, "block_tokens": 64},
        {**fields, "budget": {**request.budget.model_dump(), "curve": "oracle"}},
        {**fields, "budget": {**request.budget.model_dump(), "margin": 1.0}},
    ]
    found = {settled(each).digest(*named) for each in changed}
    assert len(found | {digest}) == 4


def test_the_flags_reach_the_plan(tmp_path: Path) -> None:
    profile, out = tmp_path / "profile.json", tmp_path / "plan.json"
    measured().save(profile)
    flags = ["plan", "-p", str(profile), "--gpus", "2", "--context", "1024", "--method", "greedy"]
    flags += ["--budget-policy", "least_error", "--budget-tokens", "256", "--block-tokens", "32"]
    flags += ["--curve", "oracle", "--floor-tokens", "32", "--explain", "-o", str(out)]
    shown = runner.invoke(app, flags, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "recovery, oracle" in shown.stdout
    assert "least recovery" in shown.stdout
    plan = json.loads(out.read_text())
    assert plan["workload"]["block_tokens"] == 32
    assert min(b for layer in plan["budgets"] for b in layer) == 32
    assert runner.invoke(app, ["verify", str(out)]).exit_code == 0


def test_compare_takes_them_too(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    measured().save(profile)
    flags = ["compare", "-p", str(profile), "--gpus", "2", "--context", "512", "--json"]
    flags += ["--methods", "greedy", "--deployments", "disaggregated", "--budget-policy", "max_min"]
    flags += ["--budget-tokens", "64", "--floor-tokens", "16", "--block-tokens", "16"]
    [row] = json.loads(runner.invoke(app, flags).stdout)
    assert row["recovery"]["curve"] == "oracle"
    assert len(row["recovery"]["least"]) == 2
    assert row["warnings"] == [w for w in row["warnings"] if "floor" not in w]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--block-tokens", "48"], "block_tokens"),
        (["--piece-tokens", "48"], "piece_tokens: Input should be 16, 32, 64 or 128"),
        (
            ["--block-tokens", "32", "--piece-tokens", "64"],
            "piece_tokens: 64 does not divide block_tokens, 32",
        ),
        (
            ["--piece-tokens", "128"],
            "piece_tokens: 128 does not divide block_tokens, 64 of profile 'tested'",
        ),
        (["--curve", "best"], "budget.curve"),
        (["--curve", "selected"], "no selected_recovery"),
        (["--margin", "1"], "has no spread"),
        (["--margin", "nan"], "budget.margin"),
        (["--floor-tokens", "16"], "budget.floor_tokens: is for max_min"),
        (["--budget-policy", "uniform", "--budget-tokens", "64", "--margin", "1"], "by no curve"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(
    tmp_path: Path, flags: list[str], words: str
) -> None:
    profile = tmp_path / "profile.json"
    curved().save(profile)
    result = runner.invoke(app, ["plan", "-p", str(profile), "--context", "1024", *flags])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_plan_says_what_its_least_head_recovers() -> None:
    plan = plan_of(curved(), budget={"policy": "max_min", "tokens": 1024}, method="greedy")
    assert plan.recovery is not None
    assert len(plan.recovery.least) == len(plan.recovery.mean) == 2
    pairs = zip(plan.recovery.least, plan.recovery.mean, strict=True)
    assert all(0 < least <= mean <= 1 for least, mean in pairs)
    found = [(e.least_recovery, e.mean_recovery) for e in explain(plan)]
    assert found == list(zip(plan.recovery.least, plan.recovery.mean, strict=True))
    assert faults(plan) == []
    without = plan_of(budgets_profile(), method="greedy")
    assert without.recovery is None
    assert "recovery" not in json.loads(without.model_dump_json())
    assert explain(without)[0].least_recovery is None
