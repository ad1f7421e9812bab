from pathlib import Path

import pytest

from executor.node import free_memory


def test_memory_of_this_machine_is_known() -> None:
    free = free_memory.free_bytes("cpu")
    assert free is None or 0 < free < 2**50


@pytest.mark.parametrize(("limit", "free"), [("1000", 400), ("500", 0), ("max", None)])
def test_a_containers_limit(
    limit: str, free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text("600\n")
    monkeypatch.setattr(free_memory, "CGROUP", tmp_path)
    monkeypatch.setattr(free_memory, "_system_free_bytes", lambda: None)
    assert free_memory.free_bytes("cpu") == free
