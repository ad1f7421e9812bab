"""Compile decode and its merge for sm_90; that needs no GPU.

`compile_decode.py [NAME...] [--table]` prints what came out of those named, or all.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

from executor.kernels.triton.chunks import PROGRAMS_PER_SM
from executor.kernels.triton.decode import Entries, decode_kernel, launch_options
from executor.kernels.triton.merge import SLOTS_PER_STEP, merge_kernel
from executor.kernels.triton.prefill import Partial, Pool, Rows
from tests.executor.kernels.cubin import ONE, Configurations, compiled_as_launched, main, resources

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
    return {
        "async_copies": compiled.asm["ptx"].count("cp.async.cg"),
        "buffers": max(map(int, kept), default=1),
        "wanted_per_sm": PROGRAMS_PER_SM,
        **resources(compiled, tool),
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


def configurations() -> Configurations:
    found: Configurations = {
        f"decode {dtype} {head_dim} {piece} {page} {entries}": partial(
            decode_facts, dtype, head_dim, piece, page, entries
        )
        for dtype in HALVES
        for head_dim in HEAD_DIMS
        for piece, page in SIZES
        for entries in ENTRIES
    }
    for dtype in HALVES:
        for head_dim in HEAD_DIMS:
            found[f"merge {dtype} {head_dim}"] = partial(merge_facts, dtype, head_dim)
    return found


if __name__ == "__main__":
    main(configurations)
