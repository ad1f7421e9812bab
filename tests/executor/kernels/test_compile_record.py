"""What is recorded of compiled kernels is believed where nothing changed, and looked at again.

Compiled by threads of this process: those who compile the kernels themselves start the processes.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest

from tests.executor.kernels import cubin
from tests.executor.kernels.cubin import Compiled

NAMES = ("0a16", "5b32", "c64")
FACTS = {"0a16": {"registers": 16}, "5b32": {"registers": 32}, "c64": {"registers": 64}}


@dataclass(frozen=True)
class Launch:
    digest: str
    compiled: list[str]

    def compile(self):
        self.compiled.append(self.digest)
        return Compiled(int(self.digest[-2:]), 0, 0, 0, 4, {}, [])

    def facts(self, compiled):
        return {"registers": compiled.registers}


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cubin, "ProcessPoolExecutor", ThreadPoolExecutor)
    script = tmp_path / "compile_some.py"
    assert compiled(script, "--record") == ["0a16", "5b32", "c64"]
    assert json.loads(capsys.readouterr().out) == FACTS
    assert sorted(json.loads(script.with_suffix(".json").read_text())) == ["0a16", "5b32", "c64"]
    return script


def compiled(script, *arguments):
    """The names of what is compiled where `script` is called so."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *arguments])
        cubin.main(lambda: {name: partial(Launch, name, found) for name in NAMES}, str(script))
    return sorted(found)


def test_one_in_sixteen_is_compiled_again_and_all_where_nothing_is_said_of_a_record(script, capsys):
    assert compiled(script, "--recorded") == ["0a16"]
    assert json.loads(capsys.readouterr().out) == FACTS
    assert compiled(script) == ["0a16", "5b32", "c64"]
    assert json.loads(capsys.readouterr().out) == FACTS


def test_what_has_another_digest_is_compiled_and_said(script, capsys):
    record = script.with_suffix(".json")
    known = json.loads(record.read_text())
    del known["c64"]
    record.write_text(json.dumps(known))
    assert compiled(script, "--recorded") == ["0a16", "c64"]
    said = capsys.readouterr()
    assert json.loads(said.out) == FACTS
    assert "1 configurations to compile that are not recorded" in said.err


def test_a_record_that_is_not_true_is_an_error(script):
    record = script.with_suffix(".json")
    known = json.loads(record.read_text())
    known["0a16"]["registers"] = 15
    record.write_text(json.dumps(known))
    with pytest.raises(SystemExit, match="'0a16' is recorded as"):
        compiled(script, "--recorded")


@pytest.mark.parametrize("arguments", [["--recrod"], ["c64", "--record"]])
def test_a_wrong_flag_or_half_a_record_changes_nothing(script, arguments):
    before = script.with_suffix(".json").read_text()
    with pytest.raises(SystemExit) as stopped:
        compiled(script, *arguments)
    assert isinstance(stopped.value.code, str)
    assert script.with_suffix(".json").read_text() == before
