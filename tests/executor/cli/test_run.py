"""`hplb run`: processes carry a plan out on a prompt, and say what the model says."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import Result
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from executor.cli.evaluate import app
from executor.weights.apply import apply
from profiles.architecture import Architecture
from solver.plans import Plan
from tests.executor.evaluation.builders import HEAD_DIM, HEADS, KV_HEADS, LAYERS, save_tiny
from tests.executor.plans import whole
from tests.executor.weights.models import planned
from tests.executor.weights.test_families import quiet
from tests.forked import forked

SHAPE = Architecture(
    layers=LAYERS, query_heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM, hidden_size=64
)
PROMPT = "the grass is green . Ann works with the sky . " * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    forked()
    made = tmp_path_factory.mktemp("run")
    save_tiny(made)
    divided = [[(0, 1.0)], [(0, 0.6), (1, 0.4)], [(1, 1.0)], [(1, 1.0)]]
    plan = planned([divided, whole(1, 1, 1, 1)], slots=2, shape=SHAPE)
    # They cover the context, so that every placement says what the model says.
    dense = plan.model_copy(update={"budgets": [[256] * HEADS] * LAYERS})
    dense.identified().save(made / "plan.json")
    return made


def run(folder: Path, *more: str) -> Result:
    asked = ["run", "--model", str(folder / "model"), "--plan", str(folder / "plan.json")]
    return CliRunner().invoke(app, [*asked, "--prompt", PROMPT, "--tokens", "5", *more])


def test_the_ranks_say_what_the_model_says_and_what_they_took(folder: Path) -> None:
    ran = run(folder, "--compare", "--json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    # Without it, words that the tokenizer does not know count as padding, which has their number.
    mask = torch.ones_like(ids)
    made = model.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    made = made[0, ids.shape[1] :].tolist()
    assert found.keys() == {"plan", "contiguous", "unpadded"}
    for figures in found.values():
        assert figures["tokens"] == made
        assert figures["text"] == tokenizer.decode(made)
        assert [len(layer) for layer in figures["prompt_s"]] == [2] * LAYERS
    # One rank has nothing in the second layer, and a group each is in file order.
    for name in ("plan", "unpadded"):
        assert found[name]["prompt_s"][1][0] < found[name]["prompt_s"][1][1]
    assert all(seconds > 0 for layer in found["contiguous"]["decode_s"] for seconds in layer)


def test_what_a_rank_cannot_do_is_said_in_one_line(folder: Path) -> None:
    (folder / "broken").mkdir()
    for file in (folder / "model").iterdir():
        (folder / "broken" / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "broken" / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "unheard"}
    (folder / "broken" / "config.json").write_text(json.dumps(config))
    asked = ["run", "--model", str(folder / "broken"), "--plan", str(folder / "plan.json")]
    ran = CliRunner().invoke(app, [*asked, "--prompt", PROMPT])
    assert ran.exit_code == 2
    assert "a rank failed: " in ran.stderr
    assert "unheard" in ran.stderr


def test_a_plan_without_slots_needs_an_ordinary_checkpoint(folder: Path) -> None:
    plan = Plan.load(folder / "plan.json")
    apply(folder / "model", plan, folder / "applied", False, quiet)
    plan.model_copy(update={"slots": None}).identified().save(folder / "unpadded.json")
    asked = ["run", "--model", str(folder / "applied"), "--plan", str(folder / "unpadded.json")]
    ran = CliRunner().invoke(app, [*asked, "--prompt", PROMPT])
    assert ran.exit_code == 2
    assert "applied: carries a plan already; apply --undo" in ran.stderr


def test_a_prompt_that_is_not_there_is_said_in_one_line(folder: Path) -> None:
    asked = ["run", "--model", str(folder / "model"), "--plan", str(folder / "plan.json")]
    ran = CliRunner().invoke(app, [*asked, "--prompt", f"@{folder / 'none.txt'}"])
    assert ran.exit_code == 2
    assert "none.txt: cannot be read" in ran.stderr
