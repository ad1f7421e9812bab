"""`hplb advise`: whether it is worth it, for a trace, lengths, or what a planner has learnt."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from api import advise_cli
from api.cli import app
from profiles.model import ModelProfile
from solver.request import RequestError
from tests.api.engine import Device, mixed
from tests.api.world import World
from tests.solver.profiles import budgets_profile, stated_budgets

runner = CliRunner()


@pytest.fixture
def profile(tmp_path: Path) -> str:
    """Of 8 query and 4 KV heads."""
    return saved(stated_budgets(np.full((2, 8), 1024.0), 4, mlp_size=2048), tmp_path)


def saved(made: ModelProfile, folder: Path) -> str:
    path = folder / "profile.json"
    made.save(path)
    return str(path)


def model(folder: Path, **changes: Any) -> str:
    """A folder with the config of a model as the profile has it."""
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "hidden_size": 512,
        "intermediate_size": 4096,
        "torch_dtype": "bfloat16",
    }
    place = folder / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({**config, **changes}))
    return str(place)


def run(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, ["advise", "--time-limit", "0.5", "--gpus", "2", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_it_answers_for_a_trace_or_for_lengths(profile: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,65536,32\n")
    found = json.loads(run("-p", profile, "--trace", str(trace), "--json"))
    assert found["answer"] == "yes"
    assert found["base"] == {"ranks": 2, "replicas": 1}
    assert [row["phase"] for row in found["rows"]] == ["prefill", "decode"]
    assert found["gain"] > found["gain_without_budgets"]
    said = run("-p", profile, "--contexts", "65536,64")
    assert "yes: " in said
    assert "prefill 65,536" in said
    assert "K/V" in said


def test_a_models_folder_alone_is_dense(tmp_path: Path) -> None:
    found = json.loads(run("--model", model(tmp_path), "--contexts", "4096", "--json"))
    assert found["dense"] is True
    assert found["loss"] == 0
    assert found["gain_of_budgets"] == 0


def test_a_profile_with_its_models_folder_takes_the_models_shape(
    profile: str, tmp_path: Path
) -> None:
    both = ("-p", profile, "--model", model(tmp_path), "--contexts", "65536", "--json")
    wider, own = json.loads(run(*both)), json.loads(run("-p", profile, *both[4:]))
    assert wider["stock_s"] > own["stock_s"]  # an MLP twice as wide
    assert not wider["dense"]


def test_a_profile_of_another_model_is_refused_by_what_differs(
    profile: str, tmp_path: Path
) -> None:
    other = model(tmp_path, num_attention_heads=16, num_hidden_layers=3)
    said = run("-p", profile, "--model", other, "--contexts", "4096", code=2)
    assert "another architecture than --model" in said
    assert "layers 2 is 3 there" in said
    assert "query_heads 8 is 16 there" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--profile, or --model, or both"),
        (["-p", "P"], "--trace, --contexts or --server"),
        (["-p", "P", "--contexts", "1", "--trace", "T"], "--trace, --contexts or --server"),
        (["-p", "P", "--contexts", "1", "--server", "S"], "--trace, --contexts or --server"),
        (["-p", "P", "--server", "http://127.0.0.1:1"], "--server and --deployment"),
        (["-p", "P", "--contexts", "1", "--deployment", "d"], "--server and --deployment"),
        (["-p", "P", "--contexts", "1", "--decode-batch", "4"], "--decode-batch"),
        (["-p", "P", "--contexts", "0"], "--contexts: 0 is not a number of tokens"),
        (["-p", "P", "--contexts", "20000000"], "1 to 16,777,216"),
        (["-p", "P", "--contexts", "many"], "not a list of whole numbers"),
        (["-p", "P", "--trace", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["-p", "P", "--contexts", "4096", "--slots", "few"], "placement.slots"),
        (["-p", "P", "--contexts", "4096", "--device-type", "abacus"], "abacus"),
        (["-p", "P", "--contexts", "4096", "--budget-loss", "-1"], "budget.loss"),
        (["--model", "M", "--contexts", "4096", "--budget-loss", "0.1"], "--budget-loss"),
    ],
)
def test_it_says_what_is_wrong(flags: list[str], said: str, profile: str) -> None:
    assert said in run(*(profile if flag == "P" else flag for flag in flags), code=2)


def test_a_model_whose_mlp_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = saved(budgets_profile(), tmp_path)
    assert "mlp_size" in run("-p", path, "--contexts", "4096", code=2)


def test_the_traffic_is_what_a_planner_has_learnt(live_world: World, profile: str) -> None:
    world = live_world
    plan = world.plan(device_type="cpu", method=..., placement={"slots": 3, "divisible": True})
    for rank in range(2):
        world.register(f"e-{rank}", ["cpu"])
    view = world.deploy(plan, ["e-0", "e-1"], refine=False)
    asked = ("-p", profile, "--server", str(world.client.base_url), "--deployment")
    assert "no engine of 'd' has told" in run(*asked, "d", code=2)
    assert "404" in run(*asked, "another", code=2)
    for batch in Device(plan).batches(view, mixed(random.Random(3), 16)):
        assert world.post(batch).status_code == 200
    # The service logs to the same output.
    found = json.loads(run(*asked, "d", "--json").splitlines()[-1])
    learnt = world.view()["traffic"]
    seen = [(row["phase"], row["context_tokens"], row["batch_size"]) for row in found["rows"]]
    assert seen == [(e["phase"], e["context_tokens"], e["batch_size"]) for e in learnt]
    assert all(row["requests"] is None for row in found["rows"])


def test_a_planner_that_wants_a_key_is_asked_with_it(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def refuses(url: str, key: str | None) -> None:
        asked.append((url, key))
        raise RequestError("refused")

    monkeypatch.setenv("HPLB_API_KEY", "secret")
    monkeypatch.setattr(advise_cli, "PlannerClient", refuses)
    assert "refused" in run("-p", profile, "--server", "http://p", "--deployment", "d", code=2)
    assert asked == [("http://p", "secret")]
