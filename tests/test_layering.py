"""Imports run one way, and torch stays where it belongs."""

import ast
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "profiles": {"profiles"},
    "solver": {"profiles", "solver"},
    "executor": {"profiles", "solver", "executor"},
    "api": {"profiles", "solver", "api"},
}
PARTS = set(MAY_IMPORT)
MEASURING = ROOT / "profiles" / "measuring"


def imports(path: Path) -> set[str]:
    """Top-level names a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("part", sorted(PARTS))
def test_imports_run_one_way(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    for path in files:
        wrong = (imports(path) & PARTS) - MAY_IMPORT[part]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("part", ["profiles", "solver", "api"])
def test_the_planner_does_without_torch(part: str) -> None:
    for path in (ROOT / part).rglob("*.py"):
        if not path.is_relative_to(MEASURING):
            assert not imports(path) & {"torch", "triton", "transformers"}, path


def test_measuring_a_model_is_imported_where_it_is_asked_for() -> None:
    """The command imports it inside its function: `hplb --help` loads no torch."""
    importers = [path for path in (ROOT / "profiles").rglob("*.py") if _loads_measuring(path)]
    assert importers == []


def _loads_measuring(path: Path) -> bool:
    """Whether a module outside `measuring` imports it as soon as it is imported."""
    if path.is_relative_to(MEASURING):
        return False
    return any(
        isinstance(node, ast.ImportFrom) and (node.module or "").startswith("profiles.measuring")
        for node in ast.parse(path.read_text()).body
    )


ROOMS = {
    "attention": set(),
    "reports": set(),
    "node": {"attention", "reports"},
    "inference": {"attention"},
    "engines": {"attention", "inference"},
    "evaluation": {"attention", "inference", "engines"},
    "cli": {"attention", "reports", "node", "evaluation"},
}
"""The executor's, and the others that each imports, beside its kernels and what all share."""


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_the_executors_rooms_build_on_each_other(room: str) -> None:
    files = sorted((ROOT / "executor" / room).rglob("*.py"))
    assert files
    for path in files:
        names = {
            (node.module or "").split(".")[1]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("executor.")
        }
        wrong = names & set(ROOMS) - ROOMS[room] - {room}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
        shows = imports(path) & {"typer", "rich", "matplotlib"}
        assert room == "cli" or not shows, f"{path.relative_to(ROOT)} imports {shows}"


def test_kernels_need_torch_and_triton_alone() -> None:
    for path in (ROOT / "executor" / "kernels").rglob("*.py"):
        foreign = imports(path) - set(sys.stdlib_module_names) - {"torch", "triton", "executor"}
        assert not foreign, f"{path} imports {foreign}"
        modules = {
            node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("executor")
        }
        assert all(m and m.startswith("executor.kernels") for m in modules), path


def test_both_implementations_of_the_kernels_have_the_same_names() -> None:
    from executor.kernels.implementation import implementation

    by_triton, by_torch = implementation(True), implementation(False)
    assert by_triton.__all__ == by_torch.__all__
    for name in by_torch.__all__:
        ours, theirs = (list(signature(getattr(x, name)).parameters) for x in (by_torch, by_triton))
        assert theirs[: len(ours)] == ours, name


def test_the_torch_back_end_needs_no_triton() -> None:
    script = "import sys; sys.modules['triton'] = None; import executor.attention.block_sparse; "
    script += "from executor.kernels.implementation import implementation; implementation(False)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_highspy_is_nowhere() -> None:
    assert "highspy" not in (ROOT / "pyproject.toml").read_text()
    assert "highspy" not in (ROOT / "constraints.txt").read_text()
