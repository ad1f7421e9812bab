"""Compile selection's kernels for sm_90; that needs no GPU.

`compile_select.py [NAME...] [--table]` prints what came out of those named, or all.
"""

from functools import partial
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from executor.kernels.triton import bounds, means, scores, select_decode, top_pieces
from executor.kernels.triton.rule_lists import rule_lists_kernel
from tests.executor.kernels.cubin import Configurations, main, resources

CACHED = ("q_ptr", "keys_ptr", "bounds_ptr")
FLOATS = ("queries_ptr", "means_ptr", "columns_ptr", "diagonals_ptr", "scores_ptr", "lse_ptr")
WIDE = {"part_ptr": "*fp64", "numbers_ptr": "*i64"}
SIZES = (1024, 2048, 4096, 8192, 16384)
GRIDS = ((1, 64), (4, 16))
"""Pieces of a block, and their tokens."""
PAGES = ((0, 16), (16, 16), (64, 16), (64, 64))
"""Tokens of a page (0 without) and of a piece."""


def parameter_type(kernel, name: str) -> str:
    if name in CACHED:
        # Pooled lists read means that are already fp32.
        return "*fp32" if kernel is top_pieces.pooled_lists_kernel else "*bf16"
    if name in WIDE:
        return WIDE[name]
    if name.endswith("_ptr"):
        return "*fp32" if name in FLOATS else "*i32"
    return "fp32" if name.startswith("scale") else "i32"


def facts(kernel, tool: Path, **options) -> dict[str, Any]:
    """Registers, spills and instructions of `kernel`; capitals are its constexprs."""
    names = kernel.arg_names
    constants = {name: value for name, value in options.items() if name.isupper()}
    # As the launcher specialises contiguous, aligned tensors.
    loose = {p.name for p in kernel.params if p.do_not_specialize}
    ones = ("_dim",) if kernel is not top_pieces.pooled_lists_kernel else ("key_piece",)
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
    ptx = compiled.asm["ptx"]
    return used | {"wgmma": ptx.count("wgmma.mma_async"), "cp_async": ptx.count("cp.async.cg")}


def configurations() -> Configurations:
    found: Configurations = {}
    for pieces in SIZES:
        options = top_pieces.launch_options(pieces)
        for per_block, piece in GRIDS:
            grid = {"PER_BLOCK": per_block, "PIECE": piece}
            name = f"{pieces} x {piece}"
            for dim in (64, 256):
                found[f"pooled {name} {dim}"] = partial(
                    facts,
                    top_pieces.pooled_lists_kernel,
                    DIM=dim,
                    **grid,
                    **top_pieces.pooled_options(pieces),
                )
            for kind, kernel in (
                ("sampled", top_pieces.sampled_lists_kernel),
                ("lines", top_pieces.line_lists_kernel),
            ):
                found[f"{kind} {name}"] = partial(facts, kernel, **grid, **options)
        found[f"decode {pieces}"] = partial(
            facts, select_decode.choose_kernel, WIDEST=8, enable_fp_fusion=False, **options
        )
    for dim in (64, 128, 256):
        for rows in (16, 64, 128):
            for page, piece in PAGES:
                found[f"sums {dim} {page} {piece} {rows}"] = partial(
                    facts,
                    scores.piece_sums_kernel,
                    PAGE=page,
                    PIECE=piece,
                    DIM=dim,
                    **scores.launch_options(rows, dim, 2, piece, page > 0),
                )
        for per_page, piece in ((1, 16), (4, 16), (1, 64)):
            sizes = means.tile(piece, dim)
            page = per_page * piece
            found[f"keys {dim} {page} {piece}"] = partial(
                facts, means.key_means_kernel, PAGE=page, **sizes
            )
            found[f"pieces {dim} {page} {piece}"] = partial(
                facts,
                select_decode.piece_scores_kernel,
                WIDEST=8,
                DIM=dim,
                PER_PAGE=per_page,
                TILE=select_decode.TILE,
            )
            for newest in (False, True):
                found[f"bounds {dim} {page} {piece} {newest}"] = partial(
                    facts, bounds.page_bounds_kernel, NEWEST=newest, PER_PAGE=per_page, **sizes
                )
        found[f"queries {dim}"] = partial(facts, means.query_means_kernel, **means.tile(128, dim))
    found["lse"] = partial(facts, scores.piece_lse_kernel, PIECE=16, STEP=1024)
    found["rule"] = partial(facts, rule_lists_kernel, PER_BLOCK=4, PIECE=16, STEP=128)
    found["rule decode"] = partial(
        facts, select_decode.rule_kernel, STEP=128, enable_fp_fusion=False
    )
    return found


if __name__ == "__main__":
    main(configurations)
