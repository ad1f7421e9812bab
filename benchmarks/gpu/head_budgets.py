"""Every head its own budget, as real profiles have it: how much of the ideal speed is reached.

The ideal is our own dense time, at the same block size, times the density of tiles. FlexAttention
gets identical lists as per-head BlockMasks, and its planning and compiling are timed apart;
FlashInfer has one mask for a KV group only, so that its seconds are compared per tile.
"""

from collections.abc import Iterator
from functools import partial

from benchmarks.gpu import peers as others
from benchmarks.gpu.dense import FLEX_S, dense_columns
from benchmarks.gpu.oracle import relative_error
from benchmarks.gpu.plans import Layer, layers
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import Problem, Tile, problems, prompt_bytes
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import rotation, timed
from benchmarks.gpu.work import prefill_work

CONTEXTS = (131_072, 32_768)
Case = tuple[str, Layer, int]


def run(section: Section) -> None:
    for name, layer, times in _cases(section.tiny):
        section.attempt(name, partial(_measured, section, layer, times))


def peers(section: Section) -> None:
    for name, layer, times in _cases(section.tiny):
        section.attempt(f"{name} flex", partial(_flex, section, layer, times), FLEX_S)
    for name, layer, times in _cases(section.tiny):
        case = f"{name} flashinfer"
        section.attempt(case, partial(_flashinfer, section, layer, times), FLEX_S)


def _cases(tiny: bool) -> Iterator[Case]:
    """A layer of every input at both ends of the contexts, in the plan's blocks and in double."""
    seen: set[tuple[str, int]] = set()
    for layer in layers(tiny):
        if (seen and tiny) or (layer.profile, layer.context_tokens) in seen:
            continue
        if not tiny and layer.context_tokens not in CONTEXTS:
            continue
        seen.add((layer.profile, layer.context_tokens))
        for times in (1,) if tiny else (1, 2):
            tile = Tile.square(layer.tile.block * times)
            yield f"{layer.profile} {layer.context_tokens} {tile}", layer, times


def _measured(section: Section, layer: Layer, times: int) -> Row:
    """`times`: blocks so many times as long as the plan's."""
    sets = _problems(section, layer, times)
    took = timed([each.attend for each in sets])
    row, layout = _about(layer, sets[0]), sets[0].layout
    tile = Tile.square(layout.block_tokens)
    dense_s, dense_work = dense_columns(section, layer.shape, layer.context_tokens, tile)
    item_bytes = sets[0].tensors.q.element_size()
    return row | {
        **took.figures(),
        "dense_s": dense_s,
        "share_of_ideal": dense_s * row["density"] / took.median_s,
        "tflops": sets[0].flops / took.median_s / 1e12,
        "work": {"s": prefill_work(layout, layer.shape.head_dim, item_bytes), **dense_work},
    }


def _problems(section: Section, layer: Layer, times: int) -> list[Problem]:
    return problems(
        layer.shape,
        layer.context_tokens,
        Tile.square(layer.tile.block * times),
        [-(-budget // times) for budget in layer.adaptive],
        device=section.device,
        sets=rotation(prompt_bytes(layer.shape, layer.context_tokens)),
        pattern=layer.pattern,
    )


def _about(layer: Layer, problem: Problem) -> Row:
    return {
        "profile": layer.profile,
        "synthetic": layer.synthetic,
        "layer": layer.layer,
        "tokens": layer.context_tokens,
        "block": problem.layout.block_tokens,
        "piece": problem.layout.piece_tokens,
        "density": problem.density,
    }


def _flex(section: Section, layer: Layer, times: int) -> Row:
    """`over_flex`: its seconds over ours, of the same problem at the same time."""
    sets = _problems(section, layer, times)
    ours, row = timed([each.attend for each in sets]), _about(layer, sets[0])
    row |= ours.figures()
    with others.recorded(row, "flex"):
        planned = timed([partial(others.flex_plan, sets[0])], seconds=0.1)
        # Padded to one width so that profiles share a compiled kernel.
        width = sets[0].layout.lists // layer.shape.query_heads
        calls = [others.flex(each, others.flex_plan(each, width)) for each in sets]
        row["compile_s"] = others.first_call_s(calls[0])
        row["flex_error"] = relative_error(calls[0](), sets[0].tensors.out)
        flex = timed(calls)
        row |= flex.figures("flex") | {"flex_plan_s": planned.median_s}
        row["over_flex"] = flex.median_s / ours.median_s
        row["over_flex_planned"] = (flex.median_s + planned.median_s) / ours.median_s
    return row


def _flashinfer(section: Section, layer: Layer, times: int) -> Row:
    problem = _problems(section, layer, times)[0]
    ours, row = timed([problem.attend]), _about(layer, problem)
    row |= ours.figures()
    with others.recorded(row, "flashinfer"):
        plan = partial(others.flashinfer_plan, problem)
        row["compile_s"] = others.first_call_s(plan)
        planned = timed([plan], seconds=0.1)
        found = timed([plan()])
        row |= found.figures("flashinfer") | {"flashinfer_plan_s": planned.median_s}
        tiles = others.flashinfer_tiles(problem)
        row["flashinfer_tiles"] = tiles
        per_tile = ours.median_s / problem.layout.tiles
        row["over_flashinfer_per_tile"] = found.median_s / tiles / per_tile
    return row
