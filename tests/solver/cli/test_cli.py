"""`hplb plan`, `hplb compare`, `hplb verify` without a server."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from profiles.errors import HplbError
from solver.cli import app
from solver.plans import Plan
from solver.report.picture import plan_picture
from solver.request import PlanRequest
from tests.solver.budgets.builders import calibrated, curved
from tests.solver.profiles import budgets_profile
from tests.solver.verifier.lies import claiming_optimal

runner = CliRunner()


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "profile.json"
    budgets_profile().save(path)
    return str(path)


def run(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_plan_of_a_models_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a model"
    folder.mkdir()
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "hidden_size": 576,
        "intermediate_size": 1536,
    }
    (folder / "config.json").write_text(json.dumps(config))
    asked = ("plan", "--model", str(folder), "--gpus", "2", "--context", "4096", "--divisible")
    plan = json.loads(run(*asked, "--json"))
    assert plan["budgets"] == [[4096] * 9] * 2
    assert plan["profile"]["name"] == "a-model"
    assert plan["whole_step"]["gain"] > 0
    assert "attention" in run(*asked)
    uniform = json.loads(
        run(*asked, "--budget-policy", "uniform", "--budget-tokens", "512", "--json")
    )
    assert uniform["budgets"] == [[512] * 9] * 2
    error = run(*asked, "--budget-policy", "max_min", code=2)
    assert "with --model it is dense or uniform" in error
    assert "--profile or --model" in run(*asked, "-p", "llama-3.1-8b-synthetic", code=2)
    error = run("plan", "--model", str(tmp_path), code=2)
    assert "config.json: cannot be read" in error


def test_the_whole_step_comes_before_bubbles(profile: str) -> None:
    rows = run("plan", "-p", "llama-3.1-8b-synthetic", "--context", "8192", "--method", "greedy")
    assert 0 < rows.index("whole step") < rows.index("bubble")
    assert "whole step" in run("plan", "-p", profile, "--context", "8192", "--method", "greedy")


def test_plan_prints_a_table_and_writes_a_plan_that_verifies(profile: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    text = run("plan", "-p", profile, "--gpus", "4", "--context", "8192", "-o", str(out))
    assert "test-profile (synthetic)" in text
    assert "optimal" in text or "feasible" in text
    assert "keeps every promise" in run("verify", str(out))


def test_flags_reach_the_plan(profile: str) -> None:
    plan = json.loads(
        run(
            *("plan", "-p", profile, "--devices", "h100:2,a100", "--context", "4096"),
            *("--phase", "decode", "--batch-size", "3", "--deployment", "tensor_parallel"),
            *("--budget-policy", "uniform", "--budget-tokens", "512", "--unit", "kv_group"),
            *("--equal-counts", "--method", "snake", "--tolerance", "0.01", "--json"),
        )
    )
    assert plan["devices"] == ["h100", "h100", "a100"]
    assert plan["workload"] == {
        "context_tokens": 4096,
        "phase": "decode",
        "batch_size": 3,
        "deployment": "tensor_parallel",
        "block_tokens": 64,
    }
    rules = plan["rules"]
    assert (rules["unit"], rules["equal_counts"]) == ("kv_group", True)
    assert {b for layer in plan["budgets"] for b in layer} == {512}
    assert (plan["solver"], plan["tolerance"]) == ("snake", 0.01)


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """The request that `hplb plan` makes of its flags; nothing is planned."""
    asked: list[PlanRequest] = []

    def enough(request: PlanRequest, *_: object) -> None:
        asked.append(request)
        raise HplbError("enough")

    monkeypatch.setattr("solver.planning.planner.make_plan", enough)
    assert "enough" in run("plan", *arguments, code=2)
    return asked[0].model_dump()


def test_flags_of_one_workload_reach_the_request(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = asked(
        monkeypatch,
        *("-p", profile, "--gpus", "4", "--context", "4096", "--seed", "7", "--time-limit", "3"),
        *("--block-tokens", "32", "--piece-tokens", "16", "--curve", "oracle", "--margin", "1.5"),
        *("--budget-policy", "elastic", "--budget-density", "0.25", "--budget-recovery", "0.8"),
        *("--budget-contexts", "1024,2048", "--budget-scope", "model", "--budget-total", "tokens"),
        *("--divisible", "--max-copies", "3", "--copies", "free", "--node-size", "2"),
    )
    assert (found["seed"], found["time_limit_s"]) == (7, 3)
    assert (found["block_tokens"], found["piece_tokens"]) == (32, 16)
    budget = {
        "policy": "elastic",
        "density": 0.25,
        "contexts": [1024, 2048],
        "recovery": 0.8,
        "margin": 1.5,
        "scope": "model",
        "total": "tokens",
        "curve": "oracle",
        "fill": False,
    }
    assert found["budget"].items() >= budget.items()
    rules = {"divisible": True, "max_copies": 3, "copies": "free", "node_size": 2}
    assert found["placement"].items() >= rules.items()
    assert asked(monkeypatch, "-p", profile, "--fill")["budget"]["fill"]
    lossy = asked(monkeypatch, "-p", profile, "--budget-loss", "0.02")["budget"]
    assert (lossy["policy"], lossy["loss"], lossy["tokens"]) == ("least_error", 0.02, None)


@pytest.mark.parametrize(("flag", "slots"), [("2", 2), ("auto", "auto"), ("some", None)])
def test_slots_reach_the_request_and_where_projections_are(
    profile: str, monkeypatch: pytest.MonkeyPatch, flag: str, slots: object
) -> None:
    if slots is None:
        assert "placement.slots: 'some'" in run("plan", "-p", profile, "--slots", flag, code=2)
        return
    found = asked(monkeypatch, "-p", profile, "--slots", flag)
    assert found["placement"]["slots"] == slots
    assert found["deployment"] == "tensor_parallel"


def test_flags_of_several_workloads_reach_the_request(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, plan = tmp_path / "steps.json", tmp_path / "plan.json"
    steps.write_text('[{"context_tokens": 4096}, {"context_tokens": 8192, "weight": 2}]')
    run("plan", "-p", profile, "--gpus", "4", "--method", "greedy", "-o", str(plan))
    found = asked(
        monkeypatch,
        *("-p", profile, "--gpus", "4", "--workloads", str(steps), "--objective", "worst"),
        *("--budget-policy", "max_min", "--budget-tokens", "512", "--floor-tokens", "64"),
        *("--kv-retention", "budget", "--memory-limit", "123456"),
        *("--current-plan", str(plan), "--amortise-steps", "50"),
    )
    assert found["objective"] == "worst"
    assert [step["weight"] for step in found["workloads"]] == [1, 2]
    budget = {"policy": "max_min", "tokens": 512, "floor_tokens": 64}
    assert found["budget"].items() >= budget.items()
    rules = found["placement"]
    memory = {"kv_retention": "budget", "limit_bytes": 123456}
    assert rules["memory"].items() >= memory.items()
    assert rules["current_plan"]["id"] == json.loads(plan.read_text())["id"]
    assert rules["amortise_steps"] == 50


def test_the_integer_programs_can_be_written(profile: str, tmp_path: Path) -> None:
    run("plan", "-p", profile, "--gpus", "2", "--method", "greedy", "--lp", str(tmp_path / "lp"))
    assert len(list((tmp_path / "lp").glob("layer_*.lp"))) == 3


def test_a_plan_can_be_drawn(profile: str, tmp_path: Path) -> None:
    plot, out = tmp_path / "plan.svg", tmp_path / "plan.json"
    run("plan", "-p", profile, "--gpus", "2", "--plot", str(plot), "--out", str(out))
    assert plot.read_text() == plan_picture(Plan.load(out))


def test_compare_covers_every_combination(profile: str, tmp_path: Path) -> None:
    plot = tmp_path / "loads.svg"
    arguments = ["compare", "-p", profile, "--gpus", "2,4", "--context", "8192"]
    arguments += ["--time-limit", "0.05"]
    rows = json.loads(run(*arguments, "--json", "--plot", str(plot)))
    assert len(rows) == 2 * 2 * 8
    for row in rows:
        assert row["makespan_over_bound"] >= 1 - 1e-9
        assert 0 <= row["bubble_ratio"] < 1
    assert plot.read_text().startswith("<svg ")
    table = run(*arguments, "--methods", "contiguous,greedy", "--deployments", "disaggregated")
    assert "4 x disaggregated" in table
    assert "predicted" in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "--profile", "nobody"], "unknown profile 'nobody'"),
        (["plan", "--plot", "plan.png"], "name it plan.svg"),
        (["compare", "--plot", "loads.png"], "name it loads.svg"),
        (["plan", "--plot", "/nowhere/plan.svg"], "its folder does not exist"),
        (["plan", "--gpus", "0"], "gpus"),
        (["plan", "--gpus", "-3"], "gpus"),
        (["plan", "--gpus", "2", "--devices", "h200:2"], "gpus"),
        (["plan", "--devices", "h200:x"], "devices"),
        (["plan", "--device-type", "tpu"], "unknown device type 'tpu'"),
        (["plan", "--method", "magic"], "method"),
        (["plan", "--time-limit", "0"], "time_limit_s"),
        (["plan", "--time-limit", "nan"], "time_limit_s"),
        (["plan", "--context", "0"], "context_tokens"),
        (["plan", "--budget-policy", "uniform"], "budget.tokens"),
        (
            ["plan", "--budget-policy", "uniform", "--budget-tokens", "9", "--context", "8"],
            "above context_tokens",
        ),
        (["plan", "-o", "/nowhere/plan.json", "--method", "greedy"], "/nowhere/plan.json"),
        (["compare", "--gpus", "2,x"], "gpus"),
        (["compare", "--methods", "greedy,magic"], "method"),
        (["verify", "/nowhere/plan.json"], "cannot be read"),
        (["verify", "/nowhere/plan.json", "--time-limit", "nan"], "time-limit"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    message = run(*arguments, code=2)
    assert words in message
    assert len(message.strip().splitlines()) == 1


def test_a_policy_without_curves_is_refused(profile: str) -> None:
    message = run(
        *("plan", "-p", profile, "--budget-policy", "max_min", "--budget-tokens", "512"), code=2
    )
    assert "max_min" in message


def test_a_loss_is_promised_or_refused(tmp_path: Path) -> None:
    path, out = tmp_path / "profile.json", tmp_path / "plan.json"
    calibrated().save(path)
    asked = ("plan", "-p", str(path), "--gpus", "2", "--context", "8192", "--method", "greedy")
    text = run(*asked, "--budget-loss", "0.5", "-o", str(out))
    assert re.search(r"predicted loss +│ 0\.\d{4} nats a token \(0\.\d{4} to 0\.\d{4}\)", text)
    assert re.search(r"budgets +│ proved within [\d.e-]+ % of the least total", text)
    made = json.loads(out.read_text())
    assert made["loss"]["high"] <= 0.5
    assert 0 <= made["budget_gap"] < 0.02
    assert "keeps every promise" in run("verify", str(out))
    text = run(*asked, "--budget-policy", "least_error", "--budget-tokens", "2048")
    assert re.search(r"budgets +│ proved within [\d.e-]+ % of the least error", text)
    curved().save(path)
    assert "`hplb calibrate`" in run(*asked, "--budget-loss", "0.5", code=2)
    refused = run(*asked, "--budget-loss", "0.5", "--budget-policy", "uniform", code=2)
    assert "budget.loss: is for policy 'least_error', not 'uniform'" in refused


def test_verify_refuses_a_plan_that_lies(profile: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    run("plan", "-p", profile, "--gpus", "2", "--method", "greedy", "-o", str(out))
    plan = json.loads(out.read_text())
    plan["makespan_s"] /= 2
    out.write_text(json.dumps(plan))
    result = runner.invoke(app, ["verify", str(out)])
    assert result.exit_code == 1
    assert "makespan_s" in result.stdout
    out.write_text(out.read_text()[:100])
    assert "plan.json" in run("verify", str(out), code=2)


def test_verify_tells_unproved_bounds_from_proved_ones(profile: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    run("plan", "-p", profile, "--gpus", "3", "--method", "auto", "-o", str(out))
    verify = ["verify", str(out)]
    assert run(*verify, "--strict").strip() == "the plan keeps every promise"
    report = json.loads(run(*verify, "--json"))
    assert (report["ok"], report["faults"], report["unproved"]) == (True, [], [])
    assert {layer["verdict"] for layer in report["layers"]} == {"proved"}
    assert all(layer["proved_s"] >= layer["claimed_s"] > 0 for layer in report["layers"])
    for flags, code in (([], 3), (["--strict"], 1)):
        result = runner.invoke(app, [*verify, "--time-limit", "0", *flags])
        assert result.exit_code == code
        assert "layer 2: bound" in result.stdout
        assert "3 of 3 layers' bounds are unproved" in result.stdout
        result = runner.invoke(app, [*verify, "--time-limit", "0", "--json", *flags])
        assert result.exit_code == code
        assert json.loads(result.stdout)["unproved"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("divisible", "code", "verdict"), [(False, 1, "false"), (True, 3, "unproved")]
)
def test_bounds_raised_to_the_makespans(
    profile: str, tmp_path: Path, divisible: bool, code: int, verdict: str
) -> None:
    """Their id is that of the content, and nothing in the plan contradicts them."""
    out = tmp_path / "plan.json"
    method = ["--divisible"] if divisible else ["--method", "contiguous"]
    run("plan", "-p", profile, "--gpus", "3", *method, "-o", str(out))
    out.write_text(json.dumps(claiming_optimal(json.loads(out.read_text()))))
    result = runner.invoke(app, ["verify", str(out), "--json"])
    assert result.exit_code == code
    report = json.loads(result.stdout)
    assert verdict in {layer["verdict"] for layer in report["layers"]}
    assert report["ok"] == (code == 3)
    assert runner.invoke(app, ["verify", str(out), "--strict"]).exit_code == 1


INTERRUPTED_AT_WORK = """
import os, signal
from solver.cli.progress import Searches

# What a shell starts in the background is born deaf to Ctrl-C, and so would be all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

told = []
def report(self, progress):
    told.append(progress)
    if len(told) == 2:
        os.kill(os.getpid(), signal.SIGINT)

Searches.report = report
from api.main import run
run()
"""


@pytest.mark.timeout(120)
def test_ctrl_c_ends_a_long_search_at_once() -> None:
    """Pressed when the search has told of a better placement; it would go on for an hour."""
    search = ["plan", "--method", "cp_sat", "--tolerance", "0", "--time-limit", "3600"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT_WORK, *search],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_plan_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe\x00")
    assert "plan.json" in run("verify", str(tmp_path / "plan.json"), code=2)


def test_a_plot_that_cannot_be_written_loses_no_table(profile: str, tmp_path: Path) -> None:
    arguments = ["compare", "-p", profile, "--gpus", "2", "--methods", "greedy"]
    plot = tmp_path / ("long" * 100)  # no file system takes such a name
    result = runner.invoke(app, [*arguments, "--plot", str(plot)])
    assert result.exit_code == 2
    assert "2 x disaggregated" in result.stdout
    assert str(tmp_path) in result.stderr
    assert "is a folder" in run(*arguments, "--plot", str(tmp_path), code=2)
