"""What the compiler makes of kernels for an H100 or H200, by a script beside this; no GPU."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest


def compiled_by(script: str) -> dict[str, dict[str, Any]]:
    """The JSON that `script` prints; skips where Triton's wheel lacks what it needs.

    What is recorded of configurations that are as they were is believed: see `cubin`.

    Kernels decorated for the interpreter do not compile: hence a process of its own.
    """
    path = Path(__file__).with_name(script)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(path), "--recorded"],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(path.parents[3])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stderr.splitlines():
        if "not recorded" in line:
            warnings.warn(f"{line}: python {path} --record", stacklevel=2)
    compiled: dict[str, Any] = json.loads(done.stdout)
    if "missing" in compiled:
        pytest.skip(compiled["missing"])
    return compiled
