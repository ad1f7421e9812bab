"""Compile the prefill kernel for sm_90, head_dim 128, and print what came out as JSON."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from executor.kernels.prefill import launch_options, prefill_kernel

HEAD_DIM = 128
ITEM_BYTES = 2


def parameter_type(name: str, dtype: str) -> str:
    if name in ("q_ptr", "k_ptr", "v_ptr", "out_ptr"):
        return f"*{dtype}"
    if name.endswith("_ptr"):
        return "*fp32" if name == "lse_ptr" else "*i32"
    return "fp32" if name == "scale_log2" else "i32"


def facts(dtype: str, block: int, tool: Path) -> dict[str, int]:
    options = launch_options(block, HEAD_DIM, ITEM_BYTES)
    names = prefill_kernel.arg_names
    # As the launcher specialises contiguous, aligned tensors.
    constants = {"BLOCK": block, "DIM": HEAD_DIM}
    constants |= {name: 1 for name in names if name.endswith("_dim")}
    types = {n: "constexpr" if n in constants else parameter_type(n, dtype) for n in names}
    aligned = ("_ptr", "_head", "_token")
    source = ASTSource(
        prefill_kernel,
        types,
        constants,
        {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n.endswith(aligned)},
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", 90, 32),
        options={name: options[name] for name in ("num_warps", "num_stages")},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = subprocess.check_output([tool, "-res-usage", cubin.name], text=True)
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "wgmma": compiled.asm["ptx"].count("wgmma.mma_async"),
        "async_copies": compiled.asm["ptx"].count("cp.async.cg"),
        "registers": found["REG"],
        "stack_bytes": found["STACK"],
        "local_bytes": found["LOCAL"],
        "shared_bytes": compiled.metadata.shared,
    }


if __name__ == "__main__":
    cuobjdump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    result: dict[str, object]
    if cuobjdump.exists():
        result = {
            f"{dtype} {block}": facts(dtype, block, cuobjdump)
            for dtype in ("bf16", "fp16")
            for block in (64, 128)
        }
    else:
        result = {"missing": f"Triton's wheel has no {cuobjdump}"}
    sys.stdout.write(json.dumps(result))
