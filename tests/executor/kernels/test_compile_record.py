"""What is recorded of compiled kernels is believed where nothing changed, and looked at again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MADE = """
import sys
from dataclasses import dataclass
from functools import partial
from tests.executor.kernels.cubin import Compiled, main

@dataclass(frozen=True)
class Launch:
    digest: str

    def compile(self):
        # One write: print's, of several processes, end up between one another.
        sys.stderr.write(f"compiled {self.digest}\\n")
        return Compiled(int(self.digest[-2:]), 0, 0, 0, 4, {}, [])

    def facts(self, compiled):
        return {"registers": compiled.registers}

def configurations():
    return {name: partial(Launch, name) for name in ("0a16", "5b32", "c64")}

main(configurations, sys.argv.pop())
"""


def run(script: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", MADE, *flags, str(script)],
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    script = tmp_path / "compile_some.py"
    first = run(script, "--record")
    assert first.returncode == 0, first.stderr
    assert sorted(json.loads(script.with_suffix(".json").read_text())) == ["0a16", "5b32", "c64"]
    return script


FACTS = {"0a16": {"registers": 16}, "5b32": {"registers": 32}, "c64": {"registers": 64}}


def compiled(finished: "subprocess.CompletedProcess[str]") -> list[str]:
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == FACTS
    return sorted(line[9:] for line in finished.stderr.splitlines() if line[:8] == "compiled")


def test_one_in_sixteen_is_compiled_again_and_all_where_nothing_is_said_of_a_record(script):
    assert compiled(run(script, "--recorded")) == ["0a16"]
    assert compiled(run(script)) == ["0a16", "5b32", "c64"]


def test_what_has_another_digest_is_compiled_and_said(script):
    record = script.with_suffix(".json")
    known = json.loads(record.read_text())
    del known["c64"]
    record.write_text(json.dumps(known))
    finished = run(script, "--recorded")
    assert compiled(finished) == ["0a16", "c64"]
    assert "1 configurations to compile that are not recorded" in finished.stderr


def test_a_record_that_is_not_true_is_an_error(script):
    record = script.with_suffix(".json")
    known = json.loads(record.read_text())
    known["0a16"]["registers"] = 15
    record.write_text(json.dumps(known))
    finished = run(script, "--recorded")
    assert finished.returncode == 1
    assert "'0a16' is recorded as" in finished.stderr


@pytest.mark.parametrize("flags", [["--recrod"], ["c64", "--record"]])
def test_a_wrong_flag_or_half_a_record_changes_nothing(script, flags):
    before = script.with_suffix(".json").read_text()
    assert run(script, *flags).returncode == 1
    assert script.with_suffix(".json").read_text() == before
