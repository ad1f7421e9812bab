"""Uniform budgets: the shape of flashinfer#5326, and how far below dense a density really brings.

There 7 heads (as many KV heads), 109,632 tokens, 64 of 64x64 blocks a row, not causal: 315
(fp16) and 317 (bf16) TFLOP/s on an H200. Ours is causal, so that the first 64 of 1,713 rows have
fewer; the rate counts the tiles computed. The blocks are what pooled selection takes of random
tensors: scattered, as they are there.
"""

from functools import partial

from benchmarks.gpu.dense import dense_columns, timed_dense
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, Problem, Shape, problems, prompt_bytes
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import rotation, timed
from benchmarks.gpu.work import prefill_work

ISSUE_5326 = Shape(7, 7)
TOKENS, TOP_K = 109_632, 64
DENSITIES = (0.1, 0.5, 0.05, 0.25, 0.025, 0.0125)
SWEEP_TOKENS = 32_768


def run(section: Section) -> None:
    blocks = (16,) if section.tiny else (64, 128)
    shape, tokens = (TINY, 64) if section.tiny else (LLAMA_8B, SWEEP_TOKENS)
    for block in blocks:
        section.attempt(f"flashinfer#5326 block {block}", partial(_published, section, block))
        section.attempt(f"dense block {block}", partial(timed_dense, section, shape, tokens, block))
    for density in DENSITIES[:1] if section.tiny else DENSITIES:
        for block in blocks:
            name = f"density {density} block {block}"
            section.attempt(name, partial(_at, section, shape, tokens, block, density))


def _published(section: Section, block: int) -> Row:
    shape, tokens = (TINY, 50) if section.tiny else (ISSUE_5326, TOKENS)
    return _timed(section, shape, tokens, block, 3 if section.tiny else TOP_K * 64 // block)


def _at(section: Section, shape: Shape, tokens: int, block: int, density: float) -> Row:
    """`share_of_ideal`: dense time times the density of tiles, over the time taken."""
    dense_s, dense_work = dense_columns(section, shape, tokens, block)
    row = _timed(section, shape, tokens, block, budget_for(density, -(-tokens // block)))
    share = dense_s * row["density"] / row["s"]
    work = row.pop("work") | dense_work
    return {**row, "dense_s": dense_s, "share_of_ideal": share, "work": work}


def _timed(section: Section, shape: Shape, tokens: int, block: int, budget: int) -> Row:
    sets = _problems(section, shape, tokens, block, budget)
    took = timed([each.attend for each in sets])
    rows, first = -(-tokens // block), sets[0]
    return {
        "tokens": tokens,
        "block": block,
        "budget_blocks": budget,
        "tiles": first.layout.tiles,
        "density": first.layout.tiles / (shape.query_heads * rows * (rows + 1) / 2),
        **took.figures(),
        "tflops": first.flops / took.median_s / 1e12,
        "work": {"s": prefill_work(first.layout, shape.head_dim, first.tensors.q.element_size())},
    }


def _problems(
    section: Section, shape: Shape, tokens: int, block: int, budget: int
) -> list[Problem]:
    sets = rotation(prompt_bytes(shape, tokens))
    return problems(shape, tokens, block, budget, device=section.device, sets=sets)


def budget_for(density: float, rows: int) -> int:
    """The budget in blocks whose causal tiles come nearest to `density` of all.

    >>> budget_for(1.0, 10), budget_for(0.5, 100)
    (10, 30)
    """
    wanted = density * rows * (rows + 1) / 2

    def tiles(budget: int) -> float:
        return budget * (budget + 1) / 2 + (rows - budget) * budget

    return min(range(1, rows + 1), key=lambda budget: abs(tiles(budget) - wanted))
