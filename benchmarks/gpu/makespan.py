"""How evenly one device's tiles fill its multiprocessors: simulated, and what skew really costs.

Simulated: the real lists of real shares, handed to the first free multiprocessor in the kernel's
own order, one on each or as many as fit; a list takes its blocks and two more. Over the lower
bound, the larger of the mean load and the longest task. Measured: the time of a skewed share beside
that of heads with equal budgets and as many tiles; what both lack cancels out, and imbalance is
left. One head to a program, since heads of unlike budgets share no lists.
"""

import heapq
from collections.abc import Sequence
from functools import partial

from benchmarks.gpu.plans import CONTIGUOUS, Layer, layers
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import (
    Problem,
    drawn,
    multiprocessors,
    programs,
    prompt_bytes,
    usual_dtype,
)
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import rotation, timed
from benchmarks.gpu.uniform_sparse import budget_for
from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadBlocks, Layout

PER_LIST = 2.0
"""What a list is assumed to cost besides its blocks, in blocks."""


def run(section: Section) -> None:
    for number, layer in enumerate(layers(section.tiny)):
        if section.tiny and number:
            break
        for scheme in (CONTIGUOUS, "adaptive divided"):
            case = f"{layer.profile} {layer.context_tokens} layer {layer.layer} {scheme}"
            section.attempt(case, partial(_measured, section, layer, scheme))


def _measured(section: Section, layer: Layer, scheme: str) -> Row:
    """Of the device whose heads' budgets differ most."""
    heads = max(layer.devices[scheme], key=_spread)
    chunks = (Chunk(0, layer.context_tokens),)
    skewed = lay_out(heads, chunks, layer.tile.block, pack=False)
    alone = multiprocessors(section.device)
    together = programs(section.device, layer.tile, layer.shape.head_dim)
    row: Row = {
        "profile": layer.profile,
        "tokens": layer.context_tokens,
        "scheme": scheme,
        "lists": skewed.lists,
        "tiles": skewed.tiles,
        "longest": skewed.longest,
        "simulated_over_bound": simulated(skewed, skewed.order.tolist(), alone),
        "simulated_over_bound_together": simulated(skewed, skewed.order.tolist(), together),
        "simulated_in_head_order": simulated(skewed, range(skewed.lists), alone),
    }
    if any((rows.first, rows.last) != (0, layer.rows) for rows in heads):
        return row
    return row | _beside_equal(section, layer, heads, skewed.tiles)


def _spread(heads: list[HeadBlocks]) -> float:
    budgets = [rows.budget_pieces for rows in heads]
    return max(budgets, default=0) / max(min(budgets, default=1), 1)


def _beside_equal(section: Section, layer: Layer, heads: list[HeadBlocks], tiles: int) -> Row:
    rows = layer.rows
    density = tiles / (len(heads) * rows * (rows + 1) / 2)
    budget = budget_for(density, rows)
    equal = [HeadBlocks(x.head, x.group, budget, 0, rows, pattern=x.pattern) for x in heads]
    seconds = []
    for each in (heads, equal):
        chunks = (Chunk(0, layer.context_tokens),)
        sets = _sets(layer, lay_out(each, chunks, layer.tile.block, section.device, pack=False))
        took = timed([problem.attend for problem in sets], seconds=0.1)
        seconds.append(took.median_s / sets[0].layout.tiles)
    return {
        "s_per_tile": seconds[0],
        "equal_s_per_tile": seconds[1],
        "skew_costs": seconds[0] / seconds[1],
    }


def _sets(layer: Layer, layout: Layout) -> list[Problem]:
    device = layout.query_block.device
    count = rotation(prompt_bytes(layer.shape, layer.context_tokens) // 8)
    return [
        Problem.of(
            drawn(layer.shape, layout.chunks, device=device, dtype=usual_dtype(device), seed=seed),
            layout,
        )
        for seed in range(count)
    ]


def simulated(layout: Layout, order: Sequence[int], programs: int) -> float:
    """Makespan over its lower bound when lists start in `order` on the first free of `programs`."""
    cost: list[float] = (layout.length.double() + PER_LIST).tolist()
    free = [0.0] * programs
    for number in order:
        heapq.heapreplace(free, free[0] + cost[number])
    bound = max(sum(cost) / programs, max(cost))
    return max(free) / bound
