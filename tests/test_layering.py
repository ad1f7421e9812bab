"""Imports run one way, and torch stays where it belongs."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from inspect import signature
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "profiles": {"profiles"},
    "solver": {"profiles", "solver"},
    "executor": {"profiles", "solver", "executor", "api"},  # of api, `api.client` alone
    "api": {"profiles", "solver", "api"},
}
PARTS = set(MAY_IMPORT)
MEASURING = ROOT / "profiles" / "measuring"


@cache
def imports_in(path: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """A file's imports, wherever in it, parsed once for all tests."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def imports(path: Path) -> set[str]:
    """Top-level names a file imports, wherever in it."""
    found = set()
    for node in imports_in(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


def modules(path: Path) -> set[str]:
    """Modules a file imports, wherever in it, by their whole names."""
    found = set()
    for node in imports_in(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            whole = node.module or ""
            # `from api import client` names a module, `from api.client import x` is one.
            found |= {f"{whole}.{a.name}" for a in node.names} if "." not in whole else {whole}
    return found


def of(room: str, names: set[str]) -> set[str]:
    """The names that are a room's, or in it."""
    return {name for name in names if name == room or name.startswith(f"{room}.")}


@pytest.mark.parametrize("part", sorted(PARTS))
def test_imports_run_one_way(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    for path in files:
        wrong = (imports(path) & PARTS) - MAY_IMPORT[part]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_the_executor_reaches_the_service_through_its_client_alone() -> None:
    for path in (ROOT / "executor").rglob("*.py"):
        names = of("api", modules(path))
        assert names == of("api.client", names), path


def test_the_client_needs_httpx_and_what_travels() -> None:
    files = sorted((ROOT / "api" / "client").rglob("*.py"))
    assert files
    for path in files:
        foreign = imports(path) - set(sys.stdlib_module_names)
        assert foreign <= {"httpx", "pydantic", "profiles", "solver", "api"}, path
        names = of("api", modules(path))
        assert names == of("api.client", names), path


def test_the_demo_is_a_client_like_any_other() -> None:
    for path in (ROOT / "api" / "demo").rglob("*.py"):
        names = of("api", modules(path))
        assert names == of("api.client", names) | of("api.demo", names), path


def test_only_the_store_speaks_sql_and_it_knows_nothing_of_the_service() -> None:
    for path in (ROOT / "api").rglob("*.py"):
        if path.is_relative_to(ROOT / "api" / "store"):
            names = of("api", modules(path))
            assert names == of("api.store", names), path
        else:
            assert not imports(path) & {"sqlalchemy", "alembic", "sqlite3"}, path


def test_the_loop_judges_without_io() -> None:
    """All of `api/loop` but the three that carry out: numbers in, verdicts out, the time too."""
    carry_out = {"refiner", "drift_watch", "elected"}
    names = {path.stem for path in (ROOT / "api" / "loop").glob("*.py")}
    assert carry_out < names
    judges = names - carry_out - {"__init__"}
    for path in (ROOT / "api" / "loop" / f"{name}.py" for name in judges):
        assert of("api", modules(path)) <= {f"api.loop.{name}" for name in judges}, path
        foreign = imports(path) - {"api", "profiles", "solver", "numpy"}
        assert foreign <= {"collections", "dataclasses", "json"}, path


@pytest.mark.parametrize("part", ["profiles", "solver", "api"])
def test_the_planner_does_without_torch(part: str) -> None:
    for path in (ROOT / part).rglob("*.py"):
        if not path.is_relative_to(MEASURING):
            assert not imports(path) & {"torch", "triton", "transformers"}, path


@pytest.mark.parametrize("part", ["profiles", "solver"])
def test_what_shows_things_to_people_is_in_cli_alone(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py"))
    cli = {path for path in files if path.is_relative_to(ROOT / part / "cli")}
    assert {"typer", "rich"} <= set().union(*(imports(path) for path in cli))
    for path in set(files) - cli:
        wrong = imports(path) & {"typer", "rich", "matplotlib"}
        wrong |= {name for name in modules(path) if name.split(".")[1:2] == ["cli"]}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_or_tools_is_for_exact_search() -> None:
    solver = ROOT / "solver"
    may = (solver / "search", solver / "exact", solver / "filling" / "cover.py")
    users = {path for path in solver.rglob("*.py") if "ortools" in imports(path)}
    assert users
    wrong = {path for path in users if not any(path.is_relative_to(place) for place in may)}
    assert not wrong


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
    "inference": {"attention", "weights"},
    "engines": {"attention", "inference", "reports", "weights"},
    "evaluation": {"attention", "inference", "engines"},
    "weights": {"attention"},
    "cli": {"attention", "reports", "node", "evaluation", "weights", "engines"},
}
"""The executor's, and the others that each imports, beside its kernels and what all share."""


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_the_executors_rooms_build_on_each_other(room: str) -> None:
    files = sorted((ROOT / "executor" / room).rglob("*.py"))
    assert files
    for path in files:
        names = {
            (node.module or "").split(".")[1]
            for node in imports_in(path)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("executor.")
        }
        wrong = names & set(ROOMS) - ROOMS[room] - {room}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
        shows = imports(path) & {"typer", "rich", "matplotlib"}
        assert room == "cli" or not shows, f"{path.relative_to(ROOT)} imports {shows}"


SOLVER_ROOMS = {
    "heuristics": {"exact"},
    "exact": set(),
    "filling": {"exact"},
    "divide": {"exact"},
    "search": {"heuristics", "exact", "filling", "divide"},
    "coupling": {"heuristics", "exact"},
    "budgets": {"exact"},
    "verifier": set(),
    "planning": {"budgets", "coupling", "heuristics", "search"},
    "report": {"planning"},
    "cli": {"budgets", "exact", "planning", "report", "verifier"},
}
"""The solver's, and the others that each imports, beside what all share."""


@pytest.mark.parametrize("room", sorted(SOLVER_ROOMS))
def test_the_solvers_rooms_build_on_each_other(room: str) -> None:
    files = sorted((ROOT / "solver" / room).rglob("*.py"))
    assert files
    rooms = {path.name for path in (ROOT / "solver").iterdir() if path.is_dir()}
    for path in files:
        names = {name.split(".")[1] for name in of("solver", modules(path)) if "." in name}
        wrong = names & rooms - SOLVER_ROOMS[room] - {room}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_kernels_need_torch_and_triton_alone() -> None:
    for path in (ROOT / "executor" / "kernels").rglob("*.py"):
        foreign = imports(path) - set(sys.stdlib_module_names) - {"torch", "triton", "executor"}
        assert not foreign, f"{path} imports {foreign}"
        modules = {
            node.module
            for node in imports_in(path)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("executor")
        }
        assert all(m and m.startswith("executor.kernels") for m in modules), path


def test_no_kernel_imports_what_imports_it() -> None:
    """An implementation, picked when it is asked for, counts as an import of both."""
    picked = ["executor.kernels.torch", "executor.kernels.triton"]
    needs = {"executor.kernels.implementation": picked}
    for path in (ROOT / "executor" / "kernels").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found = [n.module for n in imports_in(path) if _of_kernels(n)]
        needs.setdefault(name, found)
    order = TopologicalSorter(needs)
    order.prepare()


def _of_kernels(node: ast.AST) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith("executor.kernels.")


@pytest.mark.slow
def test_both_implementations_of_the_kernels_have_the_same_names() -> None:
    from executor.kernels.implementation import implementation

    by_triton, by_torch = implementation(True), implementation(False)
    assert by_triton.__all__ == by_torch.__all__
    for name in by_torch.__all__:
        ours, theirs = (list(signature(getattr(x, name)).parameters) for x in (by_torch, by_triton))
        assert theirs[: len(ours)] == ours, name


@pytest.mark.slow
def test_the_torch_back_end_needs_no_triton() -> None:
    script = "import sys; sys.modules['triton'] = None; import executor.attention.block_sparse; "
    script += "from executor.kernels.implementation import implementation; implementation(False)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_help_waits_for_no_solver() -> None:
    script = "import sys; from api.main import gather; gather(); print(*sys.modules)"
    asked = [sys.executable, "-c", script]
    loaded = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    top = {name.partition(".")[0] for name in loaded.split()}
    assert "typer" in top
    assert not top & {"scipy", "ortools", "torch", "alembic"}


def test_highspy_is_nowhere() -> None:
    assert "highspy" not in (ROOT / "pyproject.toml").read_text()
    assert "highspy" not in (ROOT / "constraints.txt").read_text()
