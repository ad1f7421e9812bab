import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from executor.errors import StateError
from executor.reports.state import NodeState
from tests.executor.plans import assignment


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint = NodeState(tmp_path / "a" / "b")
    assert checkpoint.load() is None
    for generation in (1, 2):
        checkpoint.save(assignment(generation=generation))
        assert checkpoint.load() == assignment(generation=generation)


def test_rounds_belong_to_one_generation_of_one_plan(tmp_path: Path) -> None:
    checkpoint = NodeState(tmp_path)
    mine = assignment().key
    assert checkpoint.rounds(mine) == 0
    checkpoint.save_rounds(mine, 2)
    assert checkpoint.rounds(mine) == 2
    assert checkpoint.rounds(assignment(generation=2).key) == 0
    assert checkpoint.rounds((*mine[:2], "another plan")) == 0
    checkpoint.forget_rounds()
    assert checkpoint.rounds(mine) == 0


@pytest.mark.parametrize("text", ["", "{", '{"deployment": "x"}', "\x00\xff", "[]"])
@pytest.mark.parametrize("name", ["assignment.json", "progress.json"])
def test_corrupt_files_are_set_aside(
    tmp_path: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = NodeState(tmp_path)
    (tmp_path / name).write_text(text)
    assert checkpoint.load() is None
    assert checkpoint.rounds(assignment().key) == 0
    assert (tmp_path / f"{name}.corrupt").read_text() == text
    assert not (tmp_path / name).exists()
    assert capsys.readouterr().out.count("corrupt file set aside") == 1


def test_a_truncated_checkpoint_is_corrupt(tmp_path: Path) -> None:
    checkpoint = NodeState(tmp_path)
    checkpoint.save(assignment())
    path = tmp_path / "assignment.json"
    path.write_bytes(path.read_bytes()[:-40])
    assert checkpoint.load() is None


def test_a_flipped_digit_is_corrupt(tmp_path: Path) -> None:
    checkpoint = NodeState(tmp_path)
    checkpoint.save(assignment())
    path = tmp_path / "assignment.json"
    path.write_text(path.read_text().replace('"budgets":[[64', '"budgets":[[65'))
    assert checkpoint.load() is None


def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    (tmp_path / "assignment.jsonx1.tmp").write_text("half")
    assert NodeState(tmp_path).load() is None
    assert not list(tmp_path.glob("*.tmp"))


def test_one_executor_a_folder(tmp_path: Path) -> None:
    first = NodeState(tmp_path)
    with pytest.raises(StateError, match=r"another executor is using it.*--node-id"):
        NodeState(tmp_path)
    first.close()
    NodeState(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="no usable state directory"):
        NodeState(tmp_path / "file")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "assignment.json").mkdir()
    with pytest.raises(StateError, match=r"assignment.json: cannot be read: Is a directory"):
        NodeState(tmp_path).load()


SAVE_FOREVER = """
import itertools, sys
from pathlib import Path
from executor.reports.state import NodeState
from tests.executor.plans import assignment
checkpoint = NodeState(Path(sys.argv[1]))
for generation in itertools.count(1):
    checkpoint.save(assignment(generation=generation))
    print(generation, flush=True)
"""


@pytest.mark.slow
def test_kill_while_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "1\n"
        time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = int(["1", *writer.stdout.read().split()][-1])
        writer.wait()
        checkpoint = NodeState(tmp_path)
        saved = checkpoint.load()
        assert saved is not None
        assert saved.generation >= acknowledged
        checkpoint.close()
