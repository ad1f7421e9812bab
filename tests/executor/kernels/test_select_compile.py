"""What the compiler makes of selection's kernels for an H100 or H200; that needs no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = Path(__file__).with_name("compile_select.py")


@pytest.mark.slow
def test_selection_compiles_without_spills_for_rows_of_up_to_16384_blocks():
    # Kernels decorated for the interpreter do not compile: hence a process of its own.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(COMPILE)],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(COMPILE.parents[3])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)
    if "missing" in compiled:
        pytest.skip(compiled["missing"])
    for kind in ("pooled 16384 256", "lines 16384", "decode 1024", "lse 256 128 64", "rule decode"):
        assert kind in compiled
    for name, facts in compiled.items():
        assert facts["stack_bytes"] == facts["local_bytes"] == 0, name
        assert 0 < facts["registers"] <= 255, name
        assert facts["shared_bytes"] <= 232448, name
        assert facts["wgmma"] > 0 or not (name.startswith("lse") and name.endswith("64")), name
