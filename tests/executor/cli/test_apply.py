"""`hplb apply` from the command line: written, checked, undone, refused in one line."""

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from executor.cli.evaluate import app
from executor.weights.execution_map import ExecutionMap
from tests.executor.weights.models import DIVIDED, WHOLE, planned, save


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("qwen3", tmp_path_factory.mktemp("apply") / "model")


def run(model: Path, *more: str | Path) -> Result:
    return CliRunner().invoke(app, ["apply", "--model", str(model), *map(str, more)])


def test_written_checked_and_undone(model: Path, tmp_path: Path) -> None:
    plan, out, back = tmp_path / "plan.json", tmp_path / "out", tmp_path / "back"
    made = planned(DIVIDED, slots=2)
    made.save(plan)
    ran = run(model, "--plan", plan, "-o", out, "--check")
    assert ran.exit_code == 0, ran.output
    written = ExecutionMap.load(out)
    assert written.plan == made.id
    said = " ".join(ran.stdout.split())
    ids = f"map {written.hash[:12]}, layout {written.layout.id[:12]}"
    assert f"{ids}: 2 ranks of 2 KV and 4 query slots" in said
    # 2 query and 1 KV heads of 16 rows of 96 float32, two projections each, in two layers.
    assert "8 query and 4 KV heads where the model has 6 and 3: 0.1 MB more weights" in said
    assert "1.33 times the K/V of a token" in said
    assert "only with attention that reads hplb_plan.json" in said
    assert "checked: 237 tokens in two chunks and 8 decoded alike" in said
    ran = run(out, "--undo", "-o", back)
    assert ran.exit_code == 0, ran.output
    for file in model.iterdir():
        assert (back / file.name).read_bytes() == file.read_bytes()


def test_a_plan_that_fits_no_engine_names_the_slots_to_ask_for(model: Path, tmp_path: Path) -> None:
    planned(WHOLE, slots=None).save(tmp_path / "plan.json")
    ran = run(model, "--plan", tmp_path / "plan.json", "-o", tmp_path / "out")
    assert ran.exit_code == 2
    assert ran.stderr.startswith("error: plan ")
    assert ran.stderr.endswith("plan with --slots 2\n")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--undo", "--check"], "--undo: takes no --plan and no --check"),
        ([], "--plan: is missing"),
        (["--undo"], "has no hplb_plan.json"),
    ],
)
def test_flags_that_do_not_go_together(
    model: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    ran = run(model, *flags, "-o", tmp_path / "out")
    assert ran.exit_code == 2
    assert words in ran.stderr
