"""CBC, an outside program: where its files lie, and that its failure is no result of a search."""

import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pulp
import pytest

from solver.exact import cbc
from solver.exact.cbc import SolverFailedError, SolverMissingError, run_cbc
from solver.exact.plain_folder import NoFolderError
from tests.solver.problems import soon
from tests.solver.profiles import plan_of, stated_budgets

UNEVEN = stated_budgets(np.arange(1, 9)[None] * 64.0, 8)
AWKWARD = ["a b", "50%", "a\tb", "%d %s"]


def program() -> pulp.LpProblem:
    """At most two of three, worth 2, 3 and 4: an optimum of 7."""
    with cbc.quiet():
        problem = pulp.LpProblem("knapsack", pulp.LpMaximize)
        taken = [pulp.LpVariable(f"x_{i}", 0, 1, "Binary") for i in range(3)]
        problem += pulp.lpSum((i + 2) * x for i, x in enumerate(taken))
        problem += pulp.lpSum(taken) <= 2
    return problem


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files, of this name."""
    path = tmp_path / request.param
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(path))
    return path


def program_of_cbc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """In CBC's place a shell script."""
    path = tmp_path / "cbc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", str(path))


@pytest.mark.parametrize("folder", ["plain", *AWKWARD], indirect=True)
def test_an_optimum_is_found_whatever_the_folder_is_called(folder: Path) -> None:
    assert tempfile.gettempdir() == str(folder)
    problem = program()
    assert run_cbc(problem, 0.0, soon()) == "optimal"
    assert pulp.value(problem.objective) == 7


@pytest.mark.parametrize("folder", AWKWARD[:2], indirect=True)
def test_a_plan_by_the_integer_program_is_proved_whatever_the_folder_is_called(
    folder: Path,
) -> None:
    """8 heads with budgets of 64 to 512 tokens on 3 GPUs, which greedy places 5 % worse."""
    rules = {"gpus": 3, "context_tokens": 8192, "method": "ilp"}
    plan = plan_of(UNEVEN, **rules, time_limit_s=60)
    assert tempfile.gettempdir() == str(folder)
    assert plan.status == "optimal"
    assert plan.reason is None
    assert plan.gap <= plan.tolerance
    assert plan.layers[0].bound == "ilp (CBC)"


@pytest.mark.parametrize("folder", ["a b"], indirect=True)
def test_without_any_plain_folder_the_cause_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NoFolderError, match=r"no blank and no %.*TMPDIR") as raised:
        run_cbc(program(), 0.0, soon())
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    "script", ["exit 1", "kill -SEGV $$", "exit 0"], ids=["fails", "crashes", "writes nothing"]
)
def test_a_crash_with_time_left_is_no_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    program_of_cbc(monkeypatch, tmp_path, script)
    with pytest.raises(SolverFailedError, match="CBC failed in "):
        run_cbc(program(), 0.0, soon())
    with pytest.raises(SolverFailedError):
        plan_of(UNEVEN, gpus=3, method="ilp", time_limit_s=60)


@pytest.mark.parametrize("answer", ["", "Segmentation fault", "Optimal - objective value 7\n0 X"])
def test_an_answer_cut_short_or_of_another_kind_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str
) -> None:
    script = f'while [ "$1" != -solution ]; do shift; done; printf "{answer}" > "$2"'
    program_of_cbc(monkeypatch, tmp_path, script)
    with pytest.raises(SolverFailedError, match="CBC failed in "):
        run_cbc(program(), 0.0, soon())


def test_no_thread_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With one of its own, CBC 2.10 now and then deadlocks at the end of a search."""
    program_of_cbc(monkeypatch, tmp_path, f'echo "$@" > {tmp_path}/asked; exit 1')
    with pytest.raises(SolverFailedError):
        run_cbc(program(), 0.0, soon())
    asked = (tmp_path / "asked").read_text().split()
    assert "-solve" in asked
    assert "-threads" not in asked


def test_a_crash_at_the_end_of_its_time_is_a_time_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As CBC 2.10 does when time is up during preprocessing."""
    program_of_cbc(monkeypatch, tmp_path, "sleep 1; exit 1")
    assert run_cbc(program(), 0.0, soon(0.5)) == "nothing"


def test_a_program_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", str(tmp_path / "nowhere"))
    with pytest.raises(SolverMissingError, match="nowhere"):
        run_cbc(program(), 0.0, soon())


def test_without_time_it_is_not_even_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program_of_cbc(monkeypatch, tmp_path, f"touch {tmp_path}/started; exit 1")
    assert run_cbc(program(), 0.0, soon(0.01)) == "nothing"
    assert not (tmp_path / "started").exists()
