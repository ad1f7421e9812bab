"""What the compiler makes of the prefill kernel for an H100 or H200; that needs no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = Path(__file__).with_name("compile_prefill.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "block"), [("bf16", 64), ("bf16", 128), ("fp16", 64), ("fp16", 128)]
)
def test_head_dim_128_uses_wgmma_without_spills_and_fits_shared_memory(dtype, block):
    # Kernels decorated for the interpreter do not compile: hence a process of its own.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(COMPILE), dtype, str(block), "128"],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(COMPILE.parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    if "missing" in facts:
        pytest.skip(facts["missing"])
    assert facts["wgmma"] > 0
    assert facts["async_copies"] > 0
    assert facts["stack_bytes"] == facts["local_bytes"] == 0
    assert 0 < facts["registers"] <= 255
    assert facts["shared_bytes"] <= 232448
