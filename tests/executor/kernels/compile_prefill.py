"""Compile prefill for sm_90 in every production shape; that needs no GPU.

Prints what came out as JSON, or with `--table` as a Markdown table.
"""

import json
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from executor.kernels.triton.prefill import launch_options, prefill_kernel
from tests.executor.kernels.cubin import resources

ITEM_BYTES = 2
SM_REGISTERS = 65536
SM_SHARED_BYTES = 233472
RESERVED_BYTES = 1024
"""Shared memory that the driver takes for itself from every program."""


def shapes():
    """Name, type, head_dim, block and the kernel's switches of every production configuration."""
    for dtype, head_dim, block, cache, start, loads, lists in product(
        ("bf16", "fp16"),
        (64, 128, 256),
        (64, 128),
        ("contiguous", "paged"),
        ("grid", "queue"),
        ("tma", "pointers"),
        ("whole", "cut"),
    ):
        # Cut lists add a store of fp32 and nothing that depends on the type; pointers are for
        # strides that no descriptor can have.
        if (lists == "cut" or loads == "pointers") and (dtype == "fp16" or start == "queue"):
            continue
        if lists == "cut" and loads == "pointers":
            continue
        switches = {
            "PAGED": cache == "paged",
            "TMA": loads == "tma",
            "QUEUE": start == "queue",
            "SPLIT": lists == "cut",
        }
        name = f"{dtype} {head_dim} {block} {cache} {start} {loads} {lists}"
        yield name, dtype, head_dim, block, switches


def parameter_type(name: str, dtype: str, constants: dict[str, int]) -> str:
    if name in ("keys", "values") and constants["TMA"]:
        ones = "1, 1" if constants["PAGED"] else "1"
        return f"tensordesc<{dtype}[{ones}, {constants['KEYS']}, {constants['DIM']}]>"
    if name in ("q_ptr", "keys", "values", "out_ptr"):
        return f"*{dtype}"
    if name in ("lse_ptr", "partial_out_ptr", "partial_lse_ptr"):
        return "*fp32"
    if name.endswith("_ptr"):
        return "*i32"
    return "fp32" if name == "scale_log2" else "i32"


def facts(dtype: str, head_dim: int, block: int, switches: dict[str, bool], tool: Path):
    constants = (
        launch_options(block, head_dim, ITEM_BYTES, switches["TMA"], switches["PAGED"]) | switches
    )
    warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
    names = prefill_kernel.arg_names
    # As the launcher specialises contiguous, aligned tensors.
    constants |= {name: 1 for name in names if name.endswith("_dim")}
    constants |= {"lse_token": 1, "place_block": 1}
    types = {
        n: "constexpr" if n in constants else parameter_type(n, dtype, constants) for n in names
    }
    aligned = ("_ptr", "_head", "_token", "_group", "_page")
    sixteenfold = [
        i
        for i, n in enumerate(names)
        if types[n].startswith("*") or (types[n] == "i32" and n.endswith(aligned))
    ]
    compiled = triton.compile(
        ASTSource(
            prefill_kernel,
            types,
            constants,
            {(i,): [["tt.divisibility", 16]] for i in sixteenfold},
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": warps, "num_stages": stages},
    )
    ptx = compiled.asm["ptx"]
    used = resources(compiled, tool)
    return {
        "keys": constants["KEYS"],
        "warps": warps,
        "stages": stages,
        **used,
        "programs_per_sm": min(
            SM_REGISTERS // (-(-used["registers"] // 8) * 8 * 32 * warps),
            SM_SHARED_BYTES // (used["shared_bytes"] + RESERVED_BYTES),
        ),
        "buffers": buffers(compiled.asm["ttgir"], constants["KEYS"], head_dim),
        "wgmma": ptx.count("wgmma.mma_async"),
        "async_copies": ptx.count("cp.async.cg"),
        "tma_copies": ptx.count("cp.async.bulk.tensor"),
    }


def buffers(ttgir: str, keys: int, head_dim: int) -> int:
    """Tiles of K (or of V) that shared memory holds at once: how far ahead they are loaded."""
    kept = re.findall(rf"memdesc<(?:1x)*(\d+)x(?:1x)*{keys}x{head_dim}x", ttgir)
    return max(map(int, kept), default=1)


def table(compiled: dict[str, dict[str, int]]) -> str:
    columns = list(next(iter(compiled.values())))
    rows = [["configuration", *columns], ["---"] + ["---:"] * len(columns)]
    rows += [[name, *map(str, found.values())] for name, found in compiled.items()]
    lines = [f"Triton {triton.__version__}", "", *("| " + " | ".join(r) + " |" for r in rows), ""]
    return "\n".join(lines)


def main() -> None:
    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    if not tool.exists():
        sys.stdout.write(json.dumps({"missing": f"Triton's wheel has no {tool}"}))
        return
    names, *columns = zip(*shapes(), strict=True)
    with ProcessPoolExecutor() as pool:
        found = pool.map(facts, *columns, [tool] * len(names))
    compiled = dict(zip(names, found, strict=True))
    sys.stdout.write(table(compiled) if "--table" in sys.argv else json.dumps(compiled))


if __name__ == "__main__":
    main()
