"""The rehearsal of the GPU machine's stack, but for the 5 GB that it makes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.rehearse import COLUMNS, FEW, MARK, TESTS
from tests.executor.kernels import compile_decode, compile_prefill, compile_select
from tests.test_layering import imports

ROOT = Path(__file__).parents[2]
SHELL = ROOT / "benchmarks" / "gpu" / "rehearse.sh"
COMMAND = (sys.executable, "-P", SHELL.with_suffix(".py"))
PROBES = {"prefill": compile_prefill, "decode": compile_decode, "select": compile_select}


def rehearse(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--keep", "twice"], "unrecognized arguments: twice"),
        (["--folder", "file"], "is no folder"),
        (["--folder", "."], "holds something else than a rehearsal"),
        (["--json", "nowhere/found.json"], "no folder for nowhere/found.json"),
        (["--python", "python0"], "python0 is no Python of 3.11 or newer"),
        (["--python", "/bin/true"], "/bin/true is no Python of 3.11 or newer"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, says, tmp_path):
    (tmp_path / "file").touch()
    found = rehearse(*arguments, folder=tmp_path)
    assert found.returncode == 2
    assert found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert says in line
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["python3.12", "python3.11", "python3"])
def test_it_takes_the_python_that_is_there(name, tmp_path):
    here = tmp_path / name
    here.write_text(f'#!/bin/sh\necho {name} >&2\nexec {sys.executable} "$@"')
    here.chmod(0o755)
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    environment = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)}
    found = subprocess.run([SHELL, "-h"], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert name in found.stderr.splitlines()
    for option in ("--python", "--folder", "--keep", "--tests", "--json"):
        assert option in found.stdout


def test_without_a_python_it_says_so(tmp_path):
    environment = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)}
    found = subprocess.run([SHELL], env=environment, capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr == "rehearse.sh: no Python 3.12 or 3.11 with venv and pip here\n"


@pytest.mark.parametrize("kind", FEW)
def test_what_it_compiles_is_among_the_configurations_of_the_probes(kind):
    assert set(FEW[kind]) <= set(PROBES[kind].configurations())


def test_its_choice_speaks_of_all_that_production_runs():
    prefill = " ".join(FEW["prefill"])
    for word in ("tma", "pointers", "two heads", "split", "queue", "contiguous", "64x16", "128x16"):
        assert word in prefill
    assert sum(map(len, FEW.values())) >= 20


def test_the_tests_that_it_runs_need_pytest_and_hypothesis_alone():
    allowed = {"torch", "triton", "pytest", "hypothesis", "executor", "benchmarks", "tests"}
    files = [
        *(ROOT / "tests" / "executor" / "kernels").glob("*.py"),
        ROOT / "tests" / "conftest.py",
    ]
    for path in files:
        assert imports(path) <= allowed | set(sys.stdlib_module_names), path


def test_it_runs_every_test_of_the_kernels_but_those_that_compile():
    """Whatever is marked slow."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *TESTS]
    # Of pytest's plugins the rehearsal has hypothesis' alone, which collects nothing.
    found = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    collected = {
        line.partition(":")[0] for line in found.stdout.split() if line.startswith("tests")
    }
    every = {str(x.relative_to(ROOT)) for x in (ROOT / TESTS[0]).glob("test_*.py")}
    assert collected == {name for name in every if not name.endswith("_compile.py")}


@pytest.mark.slow
def test_stopped_within_an_installation_it_ends_pip_and_knows_its_folder_again(tmp_path):
    """pip waits for an index that never answers."""
    folder = tmp_path / "rehearsal"
    environment = {name: x for name, x in os.environ.items() if not name.startswith("PIP_")}
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(300)
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DEFAULT_TIMEOUT": "1000"}
        environment |= {"PIP_INDEX_URL": f"http://127.0.0.1:{index.getsockname()[1]}/"}
        child = subprocess.Popen(
            [*COMMAND, "--folder", folder],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        asking, _ = index.accept()
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate()
        assert child.returncode == 130, said
        assert "stopped" in said
        # pip has closed what it asked by.
        while asking.recv(4096):
            pass
        asking.close()
    assert (folder / MARK).read_text() == ""
    # Anybody else's folder with something in it is refused before any other fault is named.
    again = rehearse("--folder", folder, "--python", "python0", folder=tmp_path)
    assert "python0" in again.stderr


def test_what_is_kept_of_it_was_found_with_the_stack_of_the_gpu_machine():
    """Of the configurations that are chosen now: another choice wants another rehearsal."""
    found = json.loads((ROOT / "benchmarks" / "results" / "rehearsal.json").read_text())
    assert (found["verdict"], found["problems"]) == ("passed", [])
    assert found["python"].startswith("3.12.")
    assert found["packages"]["torch"].startswith("2.11.0")
    assert found["packages"]["triton"] == "3.6.0"
    assert found["commit"]
    assert found["changed_files"] == 0
    compiled = found["compiled"]["configurations"]
    assert list(compiled) == [name for names in FEW.values() for name in names]
    assert all(set(facts) == set(COLUMNS) for facts in compiled.values())
    assert len(found["suite"]["rows"]) > 10
