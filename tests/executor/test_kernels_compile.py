"""What the compiler makes of the prefill kernel for an H100 or H200; that needs no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = Path(__file__).with_name("compile_prefill.py")


@pytest.mark.slow
def test_head_dim_128_uses_wgmma_without_spills_and_fits_shared_memory():
    # Kernels decorated for the interpreter do not compile: hence a process of its own.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(COMPILE)],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(COMPILE.parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)
    if "missing" in compiled:
        pytest.skip(compiled["missing"])
    assert set(compiled) == {"bf16 64", "bf16 128", "fp16 64", "fp16 128"}
    for name, facts in compiled.items():
        assert facts["wgmma"] > 0, name
        assert facts["async_copies"] > 0, name
        assert facts["stack_bytes"] == facts["local_bytes"] == 0, name
        assert 0 < facts["registers"] <= 255, name
        assert 0 < facts["shared_bytes"] <= 232448, name
