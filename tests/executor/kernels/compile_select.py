"""Compile selection's kernels for sm_90 and print what came out as JSON."""

import json
import sys
from pathlib import Path

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from executor.kernels.triton import bounds, means, scores, select_decode, top_blocks
from executor.kernels.triton.rule_lists import rule_lists_kernel
from tests.executor.kernels.cubin import resources

CACHED = ("q_ptr", "keys_ptr", "bounds_ptr")
FLOATS = ("queries_ptr", "means_ptr", "columns_ptr", "diagonals_ptr", "scores_ptr", "lse_ptr")
WIDE = {"part_ptr": "*fp64", "numbers_ptr": "*i64"}
SIZES = (1024, 2048, 4096, 8192, 16384)


def parameter_type(kernel, name: str) -> str:
    if name in CACHED:
        # Pooled lists read means that are already fp32.
        return "*fp32" if kernel is top_blocks.pooled_lists_kernel else "*bf16"
    if name in WIDE:
        return WIDE[name]
    if name.endswith("_ptr"):
        return "*fp32" if name in FLOATS else "*i32"
    return "fp32" if name.startswith("scale") else "i32"


def facts(kernel, tool: Path, **options) -> dict[str, int]:
    """Registers, spills and instructions of `kernel`; capitals are its constexprs."""
    names = kernel.arg_names
    constants = {name: value for name, value in options.items() if name.isupper()}
    # As the launcher specialises contiguous, aligned tensors.
    loose = {p.name for p in kernel.params if p.do_not_specialize}
    ones = ("_dim",) if kernel is not top_blocks.pooled_lists_kernel else ("key_block",)
    constants |= {n: 1 for n in names if n.endswith(ones) and n not in loose}
    loose |= {p.name for p in kernel.params if p.do_not_specialize_on_alignment}
    types = {n: "constexpr" if n in constants else parameter_type(kernel, n) for n in names}
    aligned = ("_ptr", "_head", "_token", "_group", "_page", "_side")
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(names)
        if n.endswith(aligned) and n not in {*constants, *loose}
    }
    compiled = triton.compile(
        ASTSource(kernel, types, constants, attributes),
        target=GPUTarget("cuda", 90, 32),
        options={name: value for name, value in options.items() if not name.isupper()},
    )
    used = resources(compiled, tool)
    return {
        **used,
        "wgmma": compiled.asm["ptx"].count("wgmma.mma_async"),
    }


def every(tool: Path) -> dict[str, dict[str, int]]:
    found = {}
    for blocks in SIZES:
        options = top_blocks.launch_options(blocks)
        for dim in (64, 256):
            found[f"pooled {blocks} {dim}"] = facts(
                top_blocks.pooled_lists_kernel, tool, DIM=dim, **top_blocks.pooled_options(blocks)
            )
        found[f"scores {blocks}"] = facts(top_blocks.score_lists_kernel, tool, **options)
        found[f"lines {blocks}"] = facts(top_blocks.line_lists_kernel, tool, **options)
        found[f"decode {blocks}"] = facts(
            select_decode.choose_kernel, tool, WIDEST=8, enable_fp_fusion=False, **options
        )
    for dim in (64, 128, 256):
        found[f"pages {dim}"] = facts(
            select_decode.page_scores_kernel,
            tool,
            WIDEST=8,
            DIM=dim,
            TILE=select_decode.TILE,
        )
        for block in (64, 128):
            for rows in (16, 64):
                found[f"lse {dim} {block} {rows}"] = facts(
                    scores.block_lse_kernel,
                    tool,
                    PAGED=True,
                    BLOCK=block,
                    DIM=dim,
                    ROWS=rows,
                    **scores.launch_options(rows, block),
                )
        sizes = means.tile(128, dim)
        found[f"queries {dim}"] = facts(means.query_means_kernel, tool, **sizes)
        found[f"keys {dim}"] = facts(means.key_means_kernel, tool, PAGED=True, **sizes)
        for newest in (False, True):
            found[f"bounds {dim} {newest}"] = facts(
                bounds.page_bounds_kernel, tool, NEWEST=newest, **sizes
            )
    found["rule"] = facts(rule_lists_kernel, tool, STEP=128)
    found["rule decode"] = facts(select_decode.rule_kernel, tool, STEP=128, enable_fp_fusion=False)
    return found


if __name__ == "__main__":
    cuobjdump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    missing = {"missing": f"Triton's wheel has no {cuobjdump}"}
    sys.stdout.write(json.dumps(every(cuobjdump) if cuobjdump.exists() else missing))
