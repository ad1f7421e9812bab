"""Uniform budgets: the shape of flashinfer#5326, pieces beside blocks, how far a density brings.

There 7 heads (as many KV heads), 109,632 tokens, 64 of 64x64 blocks a row, not causal: 315
(fp16) and 317 (bf16) TFLOP/s on an H200. Ours is causal, so that the first 64 of 1,713 rows have
fewer; the rate counts the tiles computed. The blocks are what pooled selection takes of random
tensors: scattered, as they are there.

At pieces of 16 a row's list holds four times as many, 256: as many (query, key) pairs of the same
tensors. Scattered ones are again what pooled selection takes; runs of four are the blocks of the
64x64 lists. `over_blocks` is the time of a pair over that at 64x64 and the same budget: contiguous
beside contiguous, pages of any size beside pages of 64.
"""

from functools import partial

import torch

from benchmarks.gpu.dense import dense_columns, timed_dense
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, Problem, Shape, Tile, problems, prompt_bytes
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import rotation, timed
from benchmarks.gpu.work import prefill_work
from profiles.sizes import causal_pieces

ISSUE_5326 = Shape(7, 7)
TOKENS, BUDGET_TOKENS = 109_632, 64 * 64
BLOCKS, LONG_BLOCKS, MIXED = Tile(64, 64), Tile(128, 128), Tile(128, 64)
PIECES, LONG_PIECES = Tile(64, 16), Tile(128, 16)
TINY_BLOCKS, TINY_PIECES = Tile(32, 32), Tile(32, 16)
SCATTERED, RUNS = "scattered", "runs"
DENSITIES = (0.1, 0.5, 0.05, 0.25, 0.025, 0.0125)
FEWER_DENSITIES = (0.1, 0.5, 0.025)
"""Where blocks and pieces are of two sizes."""
SWEEP_TOKENS = 32_768
Case = tuple[Tile, int, str]
"""Sizes, tokens of a page (0 without pages), and how the chosen pieces lie."""


def run(section: Section) -> None:
    first, others = _published_cases(section.tiny)
    _published(section, first)
    shape, tokens = (TINY, 64) if section.tiny else (LLAMA_8B, SWEEP_TOKENS)
    for tile in (TINY_BLOCKS,) if section.tiny else (BLOCKS, LONG_BLOCKS):
        section.attempt(f"dense {tile}", partial(timed_dense, section, shape, tokens, tile))
    for density, tile in _sweep(section.tiny):
        name = f"density {density} {tile}"
        section.attempt(name, partial(_at, section, shape, tokens, tile, density))
    _published(section, others)


def _published_cases(tiny: bool) -> tuple[list[Case], list[Case]]:
    """What aims speak of, then what stands beside it."""
    if tiny:
        first = [(TINY_BLOCKS, 0, SCATTERED), (TINY_PIECES, TINY_PIECES.piece, RUNS)]
        return first, [(TINY_BLOCKS, TINY_BLOCKS.piece, SCATTERED)]
    aimed = [(PIECES, pages, order) for pages in (0, 16) for order in (SCATTERED, RUNS)]
    beside = [(LONG_BLOCKS, 0), (MIXED, 0), (LONG_PIECES, 0), (BLOCKS, 64), (PIECES, 64)]
    return [(BLOCKS, 0, SCATTERED), *aimed], [(*each, SCATTERED) for each in beside]


def _sweep(tiny: bool) -> list[tuple[float, Tile]]:
    if tiny:
        return [(DENSITIES[0], TINY_BLOCKS), (DENSITIES[0], TINY_PIECES)]
    found = [(density, tile) for density in DENSITIES for tile in (BLOCKS, LONG_BLOCKS)]
    return found + [(density, tile) for density in FEWER_DENSITIES for tile in (MIXED, PIECES)]


def _published(section: Section, cases: list[Case]) -> None:
    shape, tokens, wanted = ISSUE_5326, TOKENS, BUDGET_TOKENS
    if section.tiny:
        shape, tokens, wanted = TINY, 96, 32
    for case in cases:
        tile, pages, order = case
        name = f"flashinfer#5326 {tile}"
        name += f" in pages of {pages}" if pages else ""
        name += f" in runs of {tile.per_block}" if order == RUNS else ""
        budget = wanted // tile.piece
        same = wanted // _blocks(section).piece
        section.attempt(name, partial(_beside_blocks, section, shape, tokens, case, budget, same))


def _at(section: Section, shape: Shape, tokens: int, tile: Tile, density: float) -> Row:
    """`share_of_ideal`: dense time of the block size times the density, over the time taken."""
    dense_s, dense_work = dense_columns(section, shape, tokens, Tile.square(tile.block))
    blocks = _blocks(section)
    budget, same = (
        budget_for(density, -(-tokens // each.block), each.per_block) for each in (tile, blocks)
    )
    row = _beside_blocks(section, shape, tokens, (tile, 0, SCATTERED), budget, same)
    share = dense_s * row["density"] / row["s"]
    work = row["work"] | dense_work
    return {**row, "dense_s": dense_s, "share_of_ideal": share, "work": work}


def _beside_blocks(
    section: Section, shape: Shape, tokens: int, case: Case, budget: int, same: int
) -> Row:
    """`budget` in pieces, `same` the one at 64x64 that it is compared with."""
    row, blocks = _timed(section, shape, tokens, case, budget), _blocks(section)
    if case[0] == blocks:
        return row
    pages = blocks.block if case[1] else 0
    beside = _timed(section, shape, tokens, (blocks, pages, SCATTERED), same)
    pair_s, block_pair_s = (
        each["s"] / (each["tiles"] * each["block"] * each["piece"]) for each in (row, beside)
    )
    return {**row, "over_blocks": pair_s / block_pair_s}


def _blocks(section: Section) -> Tile:
    return TINY_BLOCKS if section.tiny else BLOCKS


def _timed(section: Section, shape: Shape, tokens: int, case: Case, budget: int) -> Row:
    """Measured once a run."""
    tile, pages, order = case
    name = f"sparse {shape.query_heads} heads {tokens} {tile} pages {pages} {order} {budget}"
    return section.shared(name, partial(_measured, section, shape, tokens, case, budget))


def _measured(section: Section, shape: Shape, tokens: int, case: Case, budget: int) -> Row:
    tile, pages, order = case
    sets = problems(
        shape,
        tokens,
        tile,
        budget,
        device=section.device,
        sets=rotation(prompt_bytes(shape, tokens)),
        page_tokens=pages,
    )
    if order == RUNS:
        square = Tile.square(tile.block)
        blocks = problems(shape, tokens, square, budget // tile.per_block, device=section.device)
        sets = [in_runs(each, blocks[0]) for each in sets]
    took, first = timed([each.attend for each in sets]), sets[0]
    return {
        "tokens": tokens,
        "block": tile.block,
        "piece": tile.piece,
        "page": pages,
        "order": order,
        "budget_pieces": budget,
        "tiles": first.layout.tiles,
        "density": first.density,
        **took.figures(),
        "tflops": first.flops / took.median_s / 1e12,
        "work": {"s": prefill_work(first.layout, shape.head_dim, first.tensors.q.element_size())},
    }


def in_runs(problem: Problem, blocks: Problem) -> Problem:
    """The problem with the pieces of the blocks that the other one's lists name."""
    size = problem.layout.per_block
    pieces = blocks.indices[:, None] * size + torch.arange(size, device=blocks.indices.device)
    assert pieces.numel() == problem.layout.stored, "blocks and lists are not whole"
    return Problem(problem.tensors, problem.layout, pieces.flatten().int())


def budget_for(density: float, query_blocks: int, per_block: int = 1) -> int:
    """The budget in pieces, `per_block` of which make a query block, whose causal tiles come
    nearest to `density` of all.

    >>> budget_for(1.0, 10), budget_for(0.5, 100), budget_for(0.5, 100, per_block=4)
    (10, 29, 118)
    """
    every = causal_pieces(query_blocks * per_block, query_blocks, per_block)

    def off(budget: int) -> float:
        return abs(causal_pieces(budget, query_blocks, per_block) - density * every)

    return min(range(per_block, query_blocks * per_block + 1), key=off)
