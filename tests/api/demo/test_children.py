"""Processes of the demo end with it, whenever Ctrl-C comes."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from api.demo.children import Children, free_port


@pytest.mark.slow
def test_ctrl_c_while_a_process_is_started_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))
        os.kill(os.getpid(), signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    database = f"sqlite:///{tmp_path / 'hplb.db'}"
    try:
        with pytest.raises(KeyboardInterrupt), Children(tmp_path, {}) as children:
            children.start(
                "planner", "serve", f"--port={free_port()}", f"--database-url={database}"
            )
        assert started[0].poll() is not None
    finally:
        started[0].kill()
