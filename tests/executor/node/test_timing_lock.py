import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from threading import Thread

import pytest

from executor.errors import StateError
from executor.node.timing_lock import InterruptedWait, lock_path, timing_lock

HOLD = """
import sys
from executor.node.timing_lock import timing_lock
with timing_lock("cpu", lambda: False):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No executor of this machine is disturbed, and none disturbs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def free(accelerator: str) -> bool:
    try:
        with timing_lock(accelerator, lambda: True):
            return True
    except InterruptedWait:
        return False


def test_held_by_one_process_at_a_time_and_freed_by_its_death() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert not free("cpu")
    holder.kill()
    holder.wait()
    assert free("cpu")


def test_accelerators_are_apart() -> None:
    with timing_lock("cuda:0", lambda: False):
        assert not free("cuda:0")
        assert free("cuda:1")
        assert free("cpu")


def test_waiting_ends_when_interrupted() -> None:
    asked: list[int] = []

    def after_three() -> bool:
        asked.append(1)
        return len(asked) > 3

    with (
        timing_lock("cpu", lambda: False),
        pytest.raises(InterruptedWait),
        timing_lock("cpu", after_three),
    ):
        pytest.fail("the lock was held twice")
    assert len(asked) == 4


def test_an_error_inside_frees_the_lock() -> None:
    with pytest.raises(ZeroDivisionError), timing_lock("cpu", lambda: False):
        raise ZeroDivisionError
    assert free("cpu")


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    lock_path("cpu").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match=r"hplb-timing-cpu.lock: cannot be opened as a lock"):
        free("cpu")


def test_two_who_want_it_again_and_again_take_turns() -> None:
    order: list[str] = []

    def hold_often(name: str) -> None:
        for _ in range(10):
            with timing_lock("cpu", lambda: False):
                order.append(name)

    threads = [Thread(target=hold_often, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changes = sum(one != other for one, other in pairwise(order))
    assert sorted(order) == ["a"] * 10 + ["b"] * 10
    assert changes >= 5
