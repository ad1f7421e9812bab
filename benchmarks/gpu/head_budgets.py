"""Every head its own budget, as real profiles have it: how much of the ideal speed is reached.

The ideal is our own dense time, at the same block size, times the density of tiles. FlexAttention
gets identical lists as per-head BlockMasks, and its planning is timed apart; FlashInfer has one
mask for a KV group only, so that its seconds are compared per tile.
"""

from functools import cache, partial

import torch

from benchmarks.gpu import peers
from benchmarks.gpu.oracle import relative_error
from benchmarks.gpu.plans import Layer, layers
from benchmarks.gpu.scene import Problem, Shape, problems, prompt_bytes
from benchmarks.gpu.section import Row, Section
from benchmarks.gpu.timing import rotation, timed

CONTEXTS = (32_768, 131_072)


def run(section: Section) -> None:
    seen: set[tuple[str, int]] = set()
    for layer in layers(section.tiny):
        if seen and section.tiny:
            break
        if (layer.profile, layer.context_tokens) in seen:
            continue
        if not section.tiny and layer.context_tokens not in CONTEXTS:
            continue
        seen.add((layer.profile, layer.context_tokens))
        for times in (1,) if section.tiny else (1, 2):
            name = f"{layer.profile} {layer.context_tokens} block {layer.block_tokens * times}"
            section.attempt(name, partial(_measured, section, layer, times))


def _measured(section: Section, layer: Layer, times: int) -> Row:
    """`times`: blocks so many times as long as the plan's."""
    block = layer.block_tokens * times
    rows = -(-layer.context_tokens // block)
    budgets = tuple(-(-budget // times) for budget in layer.adaptive)
    sets = _problems(layer, block, budgets, section.device)
    took = timed([each.attend for each in sets])
    density = sets[0].layout.tiles / (layer.shape.query_heads * rows * (rows + 1) / 2)
    dense_s = dense_seconds(layer.shape, layer.context_tokens, block, section.device)
    row: Row = {
        "profile": layer.profile,
        "synthetic": layer.synthetic,
        "layer": layer.layer,
        "tokens": layer.context_tokens,
        "block": block,
        "density": density,
        **took.figures(),
        "dense_s": dense_s,
        "share_of_ideal": dense_s * density / took.median_s,
        "tflops": sets[0].flops / took.median_s / 1e12,
    }
    _add_flex(row, sets, rows)
    _add_flashinfer(row, sets[0])
    return row


def _problems(
    layer: Layer, block: int, budgets: tuple[int, ...], device: torch.device
) -> list[Problem]:
    return problems(
        layer.shape,
        layer.context_tokens,
        block,
        budgets,
        device=device,
        sets=rotation(prompt_bytes(layer.shape, layer.context_tokens)),
        pattern=layer.pattern,
    )


@cache
def dense_seconds(shape: Shape, tokens: int, block: int, device: torch.device) -> float:
    """Of our own kernel."""
    whole = -(-tokens // block)
    sets = problems(
        shape, tokens, block, whole, device=device, sets=rotation(prompt_bytes(shape, tokens))
    )
    return timed([each.attend for each in sets]).median_s


def _add_flex(row: Row, sets: list[Problem], rows: int) -> None:
    with peers.recorded(row, "flex"):
        planned = timed([partial(peers.flex_plan, each) for each in sets[:1]], seconds=0.1)
        # Padded to one width so that profiles share a compiled kernel.
        calls = [peers.flex(each, peers.flex_plan(each, rows)) for each in sets[:2]]
        row["flex_error"] = relative_error(calls[0](), sets[0].tensors.out)
        flex = timed(calls)
        row |= flex.figures("flex") | {"flex_plan_s": planned.median_s}
        row["over_flex"] = flex.median_s / row["s"]
        row["over_flex_planned"] = (flex.median_s + planned.median_s) / row["s"]


def _add_flashinfer(row: Row, problem: Problem) -> None:
    with peers.recorded(row, "flashinfer"):
        planned = timed([partial(peers.flashinfer_plan, problem)], seconds=0.1)
        found = timed([peers.flashinfer_plan(problem)])
        row |= found.figures("flashinfer") | {"flashinfer_plan_s": planned.median_s}
        tiles = peers.flashinfer_tiles(problem)
        row["flashinfer_tiles"] = tiles
        row["over_flashinfer_per_tile"] = found.median_s / tiles / (row["s"] / problem.layout.tiles)
