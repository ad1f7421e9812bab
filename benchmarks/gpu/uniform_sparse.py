"""Uniform budgets: the shape of flashinfer#5326, and how far below dense a density really brings.

There 7 heads (as many KV heads), 109,632 tokens, 64 of 64x64 blocks a row, not causal: 315
(fp16) and 317 (bf16) TFLOP/s on an H200. Ours is causal, so that the first 64 of 1,713 rows have
fewer; the rate counts the tiles computed. The blocks are what pooled selection takes of random
tensors: scattered, as they are there.
"""

from functools import partial

from benchmarks.gpu.scene import LLAMA_8B, TINY, Shape, problems, prompt_bytes
from benchmarks.gpu.section import Row, Section
from benchmarks.gpu.timing import rotation, timed

ISSUE_5326 = Shape(7, 7)
TOKENS, TOP_K = 109_632, 64
DENSITIES = (0.5, 0.25, 0.1, 0.05, 0.025, 0.0125)
SWEEP_TOKENS = 32_768


def run(section: Section) -> None:
    for block in (16,) if section.tiny else (64, 128):
        section.attempt(f"flashinfer#5326 block {block}", partial(_published, section, block))
    for block in (16,) if section.tiny else (64, 128):
        dense = section.attempt(f"dense block {block}", partial(_at, section, block, 1.0, None))
        if dense is None:
            continue
        for density in DENSITIES[:1] if section.tiny else DENSITIES:
            name = f"density {density} block {block}"
            section.attempt(name, partial(_at, section, block, density, dense["s"]))


def _published(section: Section, block: int) -> Row:
    shape, tokens = (TINY, 50) if section.tiny else (ISSUE_5326, TOKENS)
    budget = 3 if section.tiny else TOP_K * 64 // block
    sets = problems(
        shape,
        tokens,
        block,
        budget,
        device=section.device,
        sets=rotation(prompt_bytes(shape, tokens)),
    )
    took = timed([each.attend for each in sets])
    return {
        "tokens": tokens,
        "block": block,
        "budget_blocks": budget,
        "tiles": sets[0].layout.tiles,
        **took.figures(),
        "tflops": sets[0].flops / took.median_s / 1e12,
        "aim_tflops": 317,
    }


def _at(section: Section, block: int, density: float, dense_s: float | None) -> Row:
    """`share_of_ideal`: dense time times the density of tiles, over the time taken."""
    shape, tokens = (TINY, 64) if section.tiny else (LLAMA_8B, SWEEP_TOKENS)
    rows = tokens // block
    budget = budget_for(density, rows)
    sets = problems(
        shape,
        tokens,
        block,
        budget,
        device=section.device,
        sets=rotation(prompt_bytes(shape, tokens)),
    )
    took = timed([each.attend for each in sets])
    found = sets[0].layout.tiles / (shape.query_heads * rows * (rows + 1) / 2)
    row = {"tokens": tokens, "block": block, "budget_blocks": budget, "density": found}
    row |= {**took.figures(), "tflops": sets[0].flops / took.median_s / 1e12}
    return row | ({"share_of_ideal": dense_s * found / took.median_s} if dense_s else {})


def budget_for(density: float, rows: int) -> int:
    """The budget in blocks whose causal tiles come nearest to `density` of all.

    >>> budget_for(1.0, 10), budget_for(0.5, 100)
    (10, 30)
    """
    wanted = density * rows * (rows + 1) / 2

    def tiles(budget: int) -> float:
        return budget * (budget + 1) / 2 + (rows - budget) * budget

    return min(range(1, rows + 1), key=lambda budget: abs(tiles(budget) - wanted))
