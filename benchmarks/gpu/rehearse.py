"""Rehearses the GPU machine's first minutes on a machine without a GPU.

In an environment of the GPU machine's Python, torch and Triton, without the project's other
dependencies: the whole suite on tiny shapes in Triton's interpreter, some production configurations
compiled for sm_90 and, where asked for, the kernels' tests. This file needs the standard library.
"""

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
STACK = ("torch==2.11.0", "triton==3.6.0", "numpy<2.4")
"""NumPy lays out lists, and Triton 3.6's interpreter fails with 2.4 of it."""
TESTING = ("pytest", "hypothesis")
TESTS = ("tests/executor/kernels", "--ignore-glob=*_compile.py")
"""The kernels' tests but for those that compile what FEW is a part of."""
SIZE = "2.7 GB to download where pip has no copy, 4.7 GB on disk"
MARK = "rehearsal.txt"
"""The file that says a folder is ours and, a line each, what is wholly installed in it."""
SUITE_S = 1200
"""For the whole suite, which takes about a minute on two cores."""
LEAKS = ("HPLB_TMA", "PYTHONHOME", "PYTHONPATH", "TRITON_INTERPRET")
"""What a caller's environment would change of the rehearsal."""
FEW = {
    "prefill": (
        "bf16 d128 64x64 contiguous tma sm_90",
        "bf16 d128 64x64 pages of 64 tma sm_90",
        "fp16 d128 64x64 pages of 64 tma sm_90",
        "bf16 d64 64x64 pages of 64 tma sm_90",
        "bf16 d256 64x64 pages of 64 tma sm_90",
        "bf16 d128 128x128 contiguous tma sm_90",
        "bf16 d128 64x64 pages of 64 tma two heads sm_90",
        "bf16 d128 64x64 pages of 64 tma split sm_90",
        "bf16 d128 64x64 pages of 64 tma queue sm_90",
        "bf16 d128 64x64 pages of 64 pointers sm_90",
        "bf16 d128 64x16 pages of 16 pointers sm_90",
        "bf16 d128 128x16 pages of 16 pointers sm_90",
        "bf16 d128 64x16 pages of 16 pointers two heads sm_90",
        "bf16 d128 64x16 pages of 16 pointers split sm_90",
    ),
    "decode": (
        "decode bf16 128 64 64 2048",
        "decode bf16 128 16 16 8",
        "decode bf16 128 16 16 2048",
        "merge bf16 128",
    ),
    "select": (
        "sums 128 16 16 128 sm_90",
        "sampled 8192 x 16",
        "parts 8192 x 16",
        "columns and diagonals",
        "lines 8192 x 16",
        "pooled 2048 x 64 64",
        "pooled 8192 x 16 64",
        "decode 8192",
        "bounds 128 16 16 False",
    ),
}
"""Of the configurations that tests/executor/kernels/compile_*.py know, by their names there: tensor
descriptors (TMA), pieces of 16 tokens gathered, two heads together, lists cut, what selects."""
COLUMNS = ("registers", "spilled_bytes", "shared_bytes", "programs_per_sm")
"""Of a thread, of a thread, of a program, and how many a multiprocessor holds at once."""
VERSION = "import platform; print(platform.python_version())"
GRACE_S = 10
"""That a stopped command has to end by itself."""
BEGAN = time.monotonic()


def main() -> int:
    arguments = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        return _rehearse(arguments)
    except KeyboardInterrupt:
        say(f"stopped; the same command goes on with {arguments.folder}")
        return 130


def _rehearse(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    python = folder / "bin" / "python"
    new = not (_installed(folder, STACK) and _said(str(python), "-c", VERSION))
    if new:
        _make(folder, arguments.python)
    head = _head(python)
    say(f"{'new' if new else 'reused'}: {folder}, Python {head['python']}, {' '.join(STACK)}")
    problems = [f"{name} is installed" for name in _foreign(head["packages"])]
    steps: dict[str, Any] = {"suite": _suite(python), "compiled": _compiled(python)}
    if arguments.tests:
        steps["tests"] = _tested(folder)
    problems += [problem for step in steps.values() for problem in step.pop("problems")]
    verdict = "failed" if problems else "passed"
    if arguments.json:
        found = head | {"verdict": verdict, "problems": problems} | steps
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
        say(f"written: {arguments.json}")
    if new and not problems and not arguments.keep:
        _clear(folder)
        shutil.rmtree(folder)
        say(f"removed: {folder} (--keep leaves it for the next time)")
    for problem in problems:
        print(f"    {problem}")
    say(f"rehearsal {verdict}")
    return 1 if problems else 0


def _suite(python: Path) -> dict[str, Any]:
    """Checks and sections on tiny shapes; a row without figures is a problem here."""
    say("the whole suite on tiny shapes, in the interpreter")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        written = Path(place) / "found.json"
        command = ["benchmarks/gpu/run_all.sh", "--tiny", "--seconds", str(SUITE_S)]
        code, _ = _run(*command, "--json", str(written), PYTHON=str(python))
        sections = json.loads(written.read_text())["sections"] if written.exists() else {}
    problems = [f"run_all.sh --tiny ended with {code}"] if code or not sections else []
    for name, section in sections.items():
        if section.get("ended") != "finished" or not section["rows"]:
            problems.append(f"{name}: {section.get('ended', 'not run')}")
        for row in section["rows"]:
            why = [
                f"{key}: {row[key]}" for key in ("error", "skipped", "out_of_time") if key in row
            ]
            if why or row.get("ok") is False:
                problems.append(f"{name}, {row.get('case')}: {' '.join(why) or 'wrong'}")
    return {
        "seconds": round(time.monotonic() - began),
        "rows": {name: len(section["rows"]) for name, section in sections.items()},
        "problems": problems,
    }


def _compiled(python: Path) -> dict[str, Any]:
    """FEW, compiled anew for sm_90 by the probes of the tests, printed as a table."""
    found: dict[str, dict[str, Any]] = {}
    problems = []
    width = max(len(name) for names in FEW.values() for name in names)
    with tempfile.TemporaryDirectory() as cache:
        for kind, names in FEW.items():
            say(f"compiling {len(names)} configurations of {kind} for sm_90")
            script = f"tests/executor/kernels/compile_{kind}.py"
            changes = {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": cache}
            code, said = _run(str(python), script, *names, read=True, **changes)
            facts = {"missing": f"exit code {code}"} if code else json.loads(said)
            if "missing" in facts:
                problems.append(f"{kind} did not compile: {facts['missing']}")
                continue
            print(" ".join(["configuration".ljust(width), *COLUMNS]))
            for name, fact in facts.items():
                fact["spilled_bytes"] = fact["stack_bytes"] + fact["local_bytes"]
                found[name] = {column: fact[column] for column in COLUMNS}
                cells = [str(fact[column]).rjust(len(column)) for column in COLUMNS]
                print(" ".join([name.ljust(width), *cells]))
                if fact["spilled_bytes"]:
                    problems.append(f"{name}: spills {fact['spilled_bytes']} bytes a thread")
                if not fact["fits"] or not fact["programs_per_sm"]:
                    problems.append(f"{name}: does not fit a multiprocessor")
    return {"configurations": found, "problems": problems}


def _tested(folder: Path) -> dict[str, Any]:
    """TESTS, in the environment."""
    if not _installed(folder, TESTING):
        _install(folder, TESTING)
    say("the kernels' tests, in the interpreter")
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "tests.xml"
        command = [str(folder / "bin" / "python"), "-m", "pytest", "-p", "no:cacheprovider"]
        command += ["--junitxml", str(report), *TESTS]
        code, _ = _run(*command)
        suite = ElementTree.parse(report).find("testsuite") if report.exists() else None
        counts = ("tests", "failures", "errors", "skipped")
        found = {} if suite is None else {name: int(suite.get(name, 0)) for name in counts}
    return found | {"problems": [f"pytest ended with {code}"] if code else []}


def _installed(folder: Path, wanted: tuple[str, ...]) -> bool:
    mark = folder / MARK
    return mark.exists() and " ".join(wanted) in mark.read_text().splitlines()


def _make(folder: Path, python: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    say(f"making {folder} of {python} and {' '.join(STACK)}: {SIZE}")
    code, _ = _run(python, "-m", "venv", str(folder))
    if code:
        _give_up(f"{python} makes no environment")
    _install(folder, STACK)


def _clear(folder: Path) -> None:
    """All but the mark, so that whenever this is stopped the folder is known to be ours."""
    (folder / MARK).write_text("")
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        elif each.name != MARK:
            each.unlink()


def _install(folder: Path, wanted: tuple[str, ...]) -> None:
    """Marked at its end. What an installation left half-way is written over."""
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    code, _ = _run(*pip, "install", "--progress-bar", "off", "--force-reinstall", *wanted)
    if code:
        _give_up(f"pip installs no {' '.join(wanted)}")
    with (folder / MARK).open("a") as mark:
        mark.write(" ".join(wanted) + "\n")


def _head(python: Path) -> dict[str, Any]:
    """What ran where; the packages are those of the environment, by name."""
    listed = _said(str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format=json")
    status = _said("git", "status", "--porcelain")
    return {
        "command": shlex.join(["benchmarks/gpu/rehearse.sh", *sys.argv[1:]]),
        "note": "Triton's interpreter and compiler on a CPU; nothing here ran on a GPU",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _said("git", "rev-parse", "HEAD").strip() or None,
        "changed_files": len(status.splitlines()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": _said(str(python), "-c", VERSION).strip(),
        "packages": {each["name"]: each["version"] for each in json.loads(listed)},
    }


def _foreign(packages: dict[str, str]) -> list[str]:
    """Dependencies of the project beyond STACK that lie in the environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["executor"]]
    ours = {_name(line) for line in lines} - {_name(line) for line in STACK}
    return sorted(ours & {_name(name) for name in packages})


def _name(requirement: str) -> str:
    """A package's name as PEP 503 normalises it."""
    (name,) = re.findall(r"^[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(*command: str, read: bool = False, **changes: str) -> tuple[int, str]:
    """Exit code of a command in ROOT and, where read, what it said; all its processes end with
    us, and get the time to write down what they have."""
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environment() | changes,
        stdout=subprocess.PIPE if read else None,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = child.communicate()
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_S)
        raise
    return child.returncode, said or ""


def _said(*command: str) -> str:
    """What a command said; nothing where it fails."""
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in LEAKS}


class _OneLine(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _arguments() -> argparse.Namespace:
    parser = _OneLine("rehearse.sh", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "build" / "rehearsal",
        metavar="DIR",
        help="where the environment is or will be (default: build/rehearsal); reused where it is",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the environment that this run makes: otherwise it goes once all has passed",
    )
    parser.add_argument(
        "--tests",
        action="store_true",
        help="the kernels' tests as well; installs pytest and hypothesis",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="versions, table and verdict")
    parser.add_argument("--python", help="for a new environment (default: 3.12 if there is one)")
    arguments = parser.parse_args()
    folder = arguments.folder = arguments.folder.absolute()
    if folder.exists() and not folder.is_dir():
        parser.error(f"{folder} is no folder")
    if folder.exists() and not (folder / MARK).exists() and any(folder.iterdir()):
        parser.error(f"{folder} holds something else than a rehearsal: name another folder")
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        parser.error(f"no folder for {arguments.json}")
    named = arguments.python or sys.executable
    found = shutil.which(named)
    version = _said(found, "-c", f"import ensurepip, venv; {VERSION}") if found else ""
    if not version or [int(x) for x in version.split(".")[:2]] < [3, 11]:
        parser.error(f"{named} is no Python of 3.11 or newer with venv and pip")
    if arguments.python and _installed(folder, STACK):
        there = _said(str(folder / "bin" / "python"), "-c", VERSION)
        if version.split(".")[:2] != there.split(".")[:2]:
            parser.error(f"{folder} has Python {there.strip()}: name another folder")
    arguments.python = found
    return arguments


def say(text: str) -> None:
    print(f"[rehearsal {time.monotonic() - BEGAN:4.0f} s] {text}", flush=True)


def _give_up(why: str) -> NoReturn:
    say(f"rehearsal failed: {why}")
    sys.exit(1)


def _stop(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
