"""Compile decode and its merge for sm_90 and print what came out as JSON; that needs no GPU."""

import json
import sys
from pathlib import Path

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from executor.kernels.triton.decode import decode_kernel, launch_options
from executor.kernels.triton.merge import SLOTS_PER_STEP, merge_kernel
from tests.executor.kernels.cubin import resources

HALVES = ("bf16", "fp16")
HEAD_DIMS = (64, 128, 256)
BLOCKS = (64, 128)
ENTRIES = (8, 2048)
"""Batches of 1 and 256 with 8 KV groups."""
WIDEST = 4


def parameter_type(name: str, dtype: str) -> str:
    if name in ("q_ptr", "k_ptr", "v_ptr", "out_ptr"):
        return f"*{dtype}"
    if name in ("lse_ptr", "partial_out_ptr", "partial_lse_ptr"):
        return "*fp32"
    if name.endswith("_ptr"):
        return "*i32"
    return "fp32" if name == "scale_log2" else "i32"


def facts(kernel, dtype: str, constants: dict[str, int], num_warps, num_stages, tool: Path):
    names = kernel.arg_names
    # As the launcher specialises contiguous, aligned tensors.
    constants = constants | {name: 1 for name in names if name.endswith("_dim")}
    types = {n: "constexpr" if n in constants else parameter_type(n, dtype) for n in names}
    aligned = ("_ptr", "_page", "_group", "_head", "_token")
    loose = {p.name for p in kernel.params if p.do_not_specialize_on_alignment}
    loose |= {p.name for p in kernel.params if p.do_not_specialize}
    sixteenfold = [
        i for i, n in enumerate(names) if n.endswith(aligned) and n not in {*constants, *loose}
    ]
    source = ASTSource(
        kernel,
        types,
        constants,
        {(i,): [["tt.divisibility", 16]] for i in sixteenfold},
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": num_warps, "num_stages": num_stages},
    )
    used = resources(compiled, tool)
    return {
        "async_copies": compiled.asm["ptx"].count("cp.async.cg"),
        **used,
    }


def decode_facts(dtype: str, head_dim: int, block: int, entries: int, tool: Path):
    constants = {"pages_block": 1} | launch_options(block, head_dim, 2, entries, WIDEST)
    warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
    return facts(decode_kernel, dtype, constants, warps, stages, tool)


def everything(tool: Path) -> dict[str, object]:
    result = {
        f"decode {dtype} {head_dim} {block} {entries}": decode_facts(
            dtype, head_dim, block, entries, tool
        )
        for dtype in HALVES
        for head_dim in HEAD_DIMS
        for block in BLOCKS
        for entries in ENTRIES
    }
    for dtype in HALVES:
        for head_dim in HEAD_DIMS:
            constants = {"DIM": head_dim, "SLOTS": SLOTS_PER_STEP, "heads_row": 1, "lse_token": 1}
            result[f"merge {dtype} {head_dim}"] = facts(merge_kernel, dtype, constants, 4, 3, tool)
    return result


if __name__ == "__main__":
    cuobjdump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    missing = {"missing": f"Triton's wheel has no {cuobjdump}"}
    sys.stdout.write(json.dumps(everything(cuobjdump) if cuobjdump.exists() else missing))
