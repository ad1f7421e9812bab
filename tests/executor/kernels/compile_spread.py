"""Compile decode for sm_90 as it is and as it tells where it runs; prints what came out as JSON."""

import json
import sys
from pathlib import Path

from triton.backends import nvidia

from benchmarks.gpu.spread import placed_kernel
from executor.kernels.triton.decode import Entries, decode_kernel, launch_options
from executor.kernels.triton.prefill import Partial, Pool, Rows
from tests.executor.kernels.cubin import ONE, compiled_as_launched, resources


def everything(tool: Path) -> dict[str, dict[str, int]]:
    options = launch_options(64, 128, 2, 128, 4) | {"PAGE": 64, "ALIKE": True}
    pool = Pool("*bf16", "i32", "i32", "i32", ONE)
    types = {
        "q": Rows("*bf16", "i32", "i32", ONE),
        "keys": pool,
        "values": pool,
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
    told = {"places_ptr": "*i32", **types}
    usual = compiled_as_launched(decode_kernel, types, options)
    placed = compiled_as_launched(placed_kernel, told, options | {"READ": True})
    return {
        name: {"reads": compiled.asm["ptx"].count("%smid"), **resources(compiled, tool)}
        for name, compiled in (("decode", usual), ("placed", placed))
    }


if __name__ == "__main__":
    cuobjdump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    missing = {"missing": f"Triton's wheel has no {cuobjdump}"}
    sys.stdout.write(json.dumps(everything(cuobjdump) if cuobjdump.exists() else missing))
