"""Compile decode and its merge for sm_90 and print what came out as JSON; that needs no GPU."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from triton.backends import nvidia

from executor.kernels.chip import H100
from executor.kernels.triton.chunks import PROGRAMS_PER_SM
from executor.kernels.triton.decode import Entries, decode_kernel, launch_options
from executor.kernels.triton.merge import SLOTS_PER_STEP, merge_kernel
from executor.kernels.triton.prefill import Partial, Pool, Rows
from tests.executor.kernels.cubin import ONE, compiled_as_launched, resources

HALVES = ("bf16", "fp16")
HEAD_DIMS = (64, 128, 256)
SIZES = ((64, 64), (128, 128), (16, 16), (16, 128))
"""Tokens of a piece and of a page."""
ENTRIES = (8, 2048)
"""Batches of 1 and 256 with 8 KV groups."""
WIDEST = 4


def decode_facts(dtype: str, head_dim: int, piece: int, page: int, entries: int, tool: Path):
    options = launch_options(piece, head_dim, 2, entries, WIDEST) | {"PAGE": page, "ALIKE": True}
    pointer = f"*{dtype}"
    types: dict[str, Any] = {
        "q": Rows(pointer, "i32", "i32", ONE),
        "keys": Pool(pointer, "i32", "i32", "i32", ONE),
        "values": Pool(pointer, "i32", "i32", "i32", ONE),
        "table_ptr": "*i32",
        "table_sequence": "i32",
        "table_page": "i32",
        "partial": Partial("*fp32", "*fp32"),
        "lists": Entries(*["*i32"] * 6),
        "parts_ptr": "*i32",
        "context_ptr": "*i32",
        "entries": "i32",
        "widest": "i32",
        "scale_log2": "fp32",
    }
    compiled = compiled_as_launched(decode_kernel, types, options)
    kept = re.findall(rf"memdesc<(\d+)x{options['TILE']}x{head_dim}x", compiled.asm["ttgir"])
    used = resources(compiled, tool)
    return {
        "async_copies": compiled.asm["ptx"].count("cp.async.cg"),
        "buffers": max(map(int, kept), default=1),
        "programs_per_sm": H100.programs(used["shared_bytes"], options["num_warps"]),
        "wanted_per_sm": PROGRAMS_PER_SM,
        **used,
    }


def merge_facts(dtype: str, head_dim: int, tool: Path):
    options = {"DIM": head_dim, "SLOTS": SLOTS_PER_STEP, "num_warps": 4, "num_stages": 3}
    types = {name: f"*{dtype}" if name == "out_ptr" else "*i32" for name in merge_kernel.arg_names}
    types |= dict.fromkeys(("partial_out_ptr", "partial_lse_ptr", "lse_ptr"), "*fp32")
    types |= {n: "i32" for n in types if not n.endswith("_ptr") and not n.isupper()}
    types |= dict.fromkeys(("heads_row", "out_dim", "lse_token"), ONE)
    types = {name: kind for name, kind in types.items() if name not in options}
    compiled = compiled_as_launched(merge_kernel, types, options)
    return {
        "async_copies": compiled.asm["ptx"].count("cp.async.cg"),
        **resources(compiled, tool),
    }


def everything(tool: Path) -> dict[str, object]:
    result = {
        f"decode {dtype} {head_dim} {piece} {page} {entries}": decode_facts(
            dtype, head_dim, piece, page, entries, tool
        )
        for dtype in HALVES
        for head_dim in HEAD_DIMS
        for piece, page in SIZES
        for entries in ENTRIES
    }
    for dtype in HALVES:
        for head_dim in HEAD_DIMS:
            result[f"merge {dtype} {head_dim}"] = merge_facts(dtype, head_dim, tool)
    return result


if __name__ == "__main__":
    cuobjdump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    missing = {"missing": f"Triton's wheel has no {cuobjdump}"}
    sys.stdout.write(json.dumps(everything(cuobjdump) if cuobjdump.exists() else missing))
