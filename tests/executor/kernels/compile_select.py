"""Compile selection's kernels for sm_90, and what reads keys for sm_80; that needs no GPU.

`compile_select.py [NAME...] [--table] [--recorded]` prints what came out of those named, or all;
`--record` writes it down: see `cubin`.
"""

from functools import partial
from typing import Any

from executor.kernels.triton import bounds, lines, means, scores, select_decode, top_pieces
from executor.kernels.triton.arguments import Lists, Pool, Rows
from executor.kernels.triton.rule_lists import rule_lists_kernel
from tests.executor.kernels.compile_decode import ENTRIES
from tests.executor.kernels.cubin import (
    CHIPS,
    ONE,
    Compiled,
    Configurations,
    Facts,
    Launch,
    main,
)

FLOATS = (
    "queries_ptr",
    "keys_ptr",
    "means_ptr",
    "columns_ptr",
    "diagonals_ptr",
    "column_ptr",
    "diagonal_ptr",
    "next_column_ptr",
    "next_diagonal_ptr",
    "mass_ptr",
    "counted_ptr",
    "scores_ptr",
    "lse_ptr",
)
WIDE = {"numbers_ptr": "*i64"}
SIZES = (1024, 2048, 4096, 8192, 16384)
GRIDS = ((1, 64), (4, 16))
"""Pieces of a block, and their tokens."""
PAGES = ((0, 16), (16, 16), (64, 16), (64, 64), (128, 128))
"""Tokens of a page (0 without) and of a piece."""
KINDS = (("sm_90", "*bf16", 2, 90), ("sm_80", "*bf16", 2, 80), ("fp32", "*fp32", 4, 90))


def parameter_type(name: str, cached: str) -> Any:
    groups = {
        "q": Rows(cached, "i32", "i32", ONE),
        "keys": Pool(cached, "i32", "i32", "i32", ONE),
        "lists": Lists(*["*i32"] * 6),
        "entries": ENTRIES,
    }
    if name in groups:
        return groups[name]
    if name == "bounds_ptr":
        return cached
    if name in WIDE:
        return WIDE[name]
    if name.endswith("_ptr"):
        return "*fp32" if name in FLOATS else "*i32"
    return "fp32" if name.startswith("scale") else "i32"


def launch(kernel, *, cached: str = "*bf16", capability: int = 90, **options) -> Launch:
    """Of `kernel`; capitals are its constexprs."""
    loose = {p.name for p in kernel.params if p.do_not_specialize}
    ones = "key_piece" if kernel is top_pieces.pooled_lists_kernel else ("_dim", "mean_piece")
    names = [n for n in kernel.arg_names if not n.isupper()]
    types = {
        n: ONE if n.endswith(ones) and n not in loose else parameter_type(n, cached) for n in names
    }

    def facts(compiled: Compiled) -> Facts:
        counted = {kind: compiled.instructions[kind] for kind in ("wgmma", "async_copies")}
        return compiled.resources(CHIPS[capability]) | counted

    return Launch(kernel, types, options, facts, capability)


def configurations() -> Configurations:
    found: Configurations = {}
    for pieces in SIZES:
        options = top_pieces.launch_options(pieces)
        for per_block, piece in GRIDS:
            grid = {"PER_BLOCK": per_block, "PIECE": piece}
            name = f"{pieces} x {piece}"
            for dim in (64, 256):
                found[f"pooled {name} {dim}"] = partial(
                    launch,
                    top_pieces.pooled_lists_kernel,
                    DIM=dim,
                    **grid,
                    **top_pieces.pooled_options(pieces),
                )
            for kind, kernel in (
                ("sampled", top_pieces.sampled_lists_kernel),
                ("lines", top_pieces.line_lists_kernel),
            ):
                found[f"{kind} {name}"] = partial(launch, kernel, **grid, **options)
        found[f"parts {pieces} x 16"] = partial(launch, lines.parts_kernel, PIECE=16, **options)
        found[f"decode {pieces}"] = partial(
            launch, select_decode.best_kernel, WIDEST=8, enable_fp_fusion=False, **options
        )
    for dim in (64, 128, 256):
        for rows in (16, 64, 128):
            for page, piece in PAGES:
                name = f"{dim} {page} {piece} {rows}"
                sizes = {"PAGE": page, "PIECE": piece, "DIM": dim}
                for kind, cached, item_bytes, capability in KINDS if rows == 128 else KINDS[:1]:
                    found[f"sums {name} {kind}"] = partial(
                        launch,
                        scores.piece_sums_kernel,
                        cached=cached,
                        capability=capability,
                        **sizes,
                        **scores.launch_options(
                            rows, dim, item_bytes, piece, page > 0, CHIPS[capability]
                        ),
                    )
        for per_page, piece in ((1, 16), (4, 16), (1, 64)):
            sizes = means.tile(piece, dim)
            page = per_page * piece
            found[f"keys {dim} {page} {piece}"] = partial(
                launch, means.key_means_kernel, PAGE=page, **sizes
            )
            found[f"pieces {dim} {page} {piece}"] = partial(
                launch,
                select_decode.piece_scores_kernel,
                WIDEST=8,
                DIM=dim,
                PER_PAGE=per_page,
                TILE=select_decode.TILE,
            )
            for newest in (False, True):
                found[f"bounds {dim} {page} {piece} {newest}"] = partial(
                    launch, bounds.page_bounds_kernel, NEWEST=newest, PER_PAGE=per_page, **sizes
                )
        found[f"queries {dim}"] = partial(launch, means.query_means_kernel, **means.tile(128, dim))
    found["columns and diagonals"] = partial(launch, lines.lines_kernel, PIECE=16, STEP=lines.STEP)
    found["lse"] = partial(launch, scores.piece_lse_kernel, PIECE=16, STEP=1024)
    found["rule"] = partial(launch, rule_lists_kernel, PER_BLOCK=4, PIECE=16, STEP=128)
    found["rule decode"] = partial(
        launch, select_decode.rule_kernel, STEP=128, enable_fp_fusion=False
    )
    return found


if __name__ == "__main__":
    main(configurations, __file__)
