"""The head-parallel headline: a layer's attention over 8 devices, each timed alone on this GPU.

The slowest device's time is the layer's. Schemes: dense; one uniform budget; adaptive budgets,
placed contiguously, greedily, by exact search, and divided. Selection is included and captured
with the attention in a CUDA graph. With recovery curves (synthetic, labelled) uniform and adaptive
budgets have equal minimum recovery, without curves equal total tiles. The aims: at least 6x over
dense at 128K; the divided plan's slowest device within 3 % of the mean.
"""

from collections.abc import Iterator
from functools import cache, partial

import torch

from benchmarks.gpu import peers as others
from benchmarks.gpu.plans import CONTIGUOUS, Layer, coarser, layers
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import (
    Problem,
    Shape,
    Tensors,
    Tile,
    drawn,
    programs,
    prompt_bytes,
    usual_dtype,
)
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import Timed, rotation, timed
from benchmarks.gpu.work import Work, prefill_work
from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadBlocks

DENSE, UNIFORM, DIVIDED = "dense contiguous", "uniform contiguous", "adaptive divided"
LONGEST = 131_072
DEVICES = 8
SAMPLES_S = 0.03
Case = tuple[Layer, str, int]
"""A layer, a scheme, and how many times as long as the plan's its blocks are."""
Found = tuple[Timed, Work]


def run(section: Section) -> None:
    for layer, scheme, times in _cases(section.tiny):
        name = f"{layer.profile} {layer.context_tokens} layer {layer.layer} {scheme}"
        if times > 1:
            name += " in longer blocks"
        section.attempt(name, partial(_measured, section, layer, scheme, times))


def _cases(tiny: bool) -> Iterator[Case]:
    """The middle layers at every context, what the headline is made of first; then the others."""
    every = list(layers(tiny))
    if tiny:
        yield every[0], DIVIDED, 1
        return
    first = (DIVIDED, CONTIGUOUS, UNIFORM, DENSE)
    middle = [layer for layer in every if layer.middle]
    for layer in middle:
        yield from ((layer, scheme, 1) for scheme in first)
    yield from ((layer, DIVIDED, 2) for layer in middle if layer.context_tokens == LONGEST)
    for layer in middle:
        yield from ((layer, scheme, 1) for scheme in layer.devices if scheme not in first)
    for layer in every:
        if not layer.middle:
            yield from ((layer, scheme, 1) for scheme in layer.devices)


def _measured(section: Section, layer: Layer, scheme: str, times: int) -> Row:
    """Seconds of every device; `times`: blocks so many times as long as the plan's."""
    device, tile = section.device, Tile.square(layer.tile.block * times)
    dense_s, dense_work = _dense(section, layer.shape, layer.context_tokens)
    shares = layer.devices[scheme][: 2 if section.tiny else None]
    if times == 2:
        shares = [coarser(heads) for heads in shares]
    shares = [[rows for rows in heads if rows.first < rows.last] for heads in shares]
    # What is equal but for the heads' numbers takes equally long: once is enough.
    stands_for = [[_likeness(each) for each in shares].index(_likeness(x)) for x in shares]
    found = {n: _timed(layer, shares[n], tile, device) for n in sorted(set(stands_for))}
    whole, alone = zip(*(found[n] for n in stands_for), strict=True)
    seconds, attention = ([took.median_s for took, _ in each] for each in (whole, alone))
    return {
        "profile": layer.profile,
        "synthetic": layer.synthetic,
        "equal": layer.equal,
        "tokens": layer.context_tokens,
        "layer": layer.layer,
        "scheme": scheme,
        "block": tile.block,
        "piece": tile.piece,
        "kv_copies": layer.kv_copies[scheme],
        "slowest_s": max(seconds),
        "slowest_p90_s": max(took.p90_s for took, _ in whole),
        "over_mean": max(seconds) / (sum(seconds) / len(seconds)),
        "attention_slowest_s": max(attention),
        "attention_over_mean": max(attention) / (sum(attention) / len(attention)),
        "dense_s": dense_s,
        "over_dense": dense_s / max(seconds),
        "in_graph": all(took.graph for took, _ in whole),
        "device_s": seconds,
        "attention_device_s": attention,
        "device_timed": stands_for,
        "work": {
            "device_s": [work for _, work in whole],
            "attention_device_s": [work for _, work in alone],
            **dense_work,
        },
    }


def _likeness(heads: list[HeadBlocks]) -> list[object]:
    """What a share's time depends on: its heads with their groups numbered as they come."""
    groups: dict[int, int] = {}
    return [
        (groups.setdefault(x.group, len(groups)), x.budget_pieces, x.first, x.last, x.pattern)
        for x in heads
    ]


def _timed(
    layer: Layer, heads: list[HeadBlocks], tile: Tile, device: torch.device
) -> tuple[Found, Found]:
    """One device's share with selection and without, each with its work."""
    nothing = (Timed(0.0, 0.0, 0.0, 0), Work())
    if not heads:
        return nothing, nothing
    tensors = _tensors(layer.shape, layer.context_tokens, device)
    head_dim, item_bytes = layer.shape.head_dim, tensors[0].q.element_size()
    at_once = programs(device, tile, head_dim, item_bytes)
    chunks = (Chunk(0, layer.context_tokens),)
    layout = lay_out(heads, chunks, tile.block, device, at_once, tile.piece)
    sets = [Problem.of(each, layout) for each in tensors]
    alone = timed([each.attend for each in sets], seconds=SAMPLES_S)
    whole = timed([each.choose_and_attend for each in sets], seconds=SAMPLES_S, graph=True)
    return (
        (whole, prefill_work(layout, head_dim, item_bytes, chooses=True)),
        (alone, prefill_work(layout, head_dim, item_bytes)),
    )


@cache
def _tensors(shape: Shape, tokens: int, device: torch.device) -> list[Tensors]:
    """Of the whole layer; a device reads its heads' part, an eighth of it."""
    return [
        drawn(shape, (Chunk(0, tokens),), device=device, dtype=usual_dtype(device), seed=seed)
        for seed in range(rotation(prompt_bytes(shape, tokens) // DEVICES))
    ]


def _share(shape: Shape, rows: int) -> list[HeadBlocks]:
    """An eighth of a dense layer: the most heads a device has, of as few groups as they have."""
    heads = range(-(-shape.query_heads // DEVICES))
    return [HeadBlocks(head, head // shape.group_size, rows, 0, rows) for head in heads]


def _dense(section: Section, shape: Shape, tokens: int) -> tuple[float, dict[str, Work]]:
    """Seconds of a dense eighth at our better block size, and its work; measured once a run."""
    name = f"dense eighth {shape.query_heads} of {shape.kv_heads} x {shape.head_dim} {tokens}"
    found = [
        section.shared(f"{name} {tile}", partial(_eighth, section, shape, tokens, tile))
        for tile in map(Tile.square, (16,) if section.tiny else (64, 128))
    ]
    best = min(found, key=lambda row: row["s"])
    return best["s"], {"dense_s": best["work"]["s"]}


def _eighth(section: Section, shape: Shape, tokens: int, tile: Tile) -> Row:
    chunks, share = (Chunk(0, tokens),), _share(shape, -(-tokens // tile.block))
    layout = lay_out(share, chunks, tile.block, section.device, piece_tokens=tile.piece)
    tensors = _tensors(shape, tokens, section.device)
    took = timed([Problem.of(each, layout).attend for each in tensors], seconds=0.1)
    work = prefill_work(layout, shape.head_dim, tensors[0].q.element_size())
    sizes = {"block": tile.block, "piece": tile.piece}
    return {"tokens": tokens, **sizes, **took.figures(), "work": {"s": work}}


def peers(section: Section) -> None:
    """The dense eighth by SDPA."""
    for tokens, shape in dict.fromkeys((x.context_tokens, x.shape) for x in layers(section.tiny)):
        name = f"dense eighth {shape.query_heads} of {shape.kv_heads} {tokens}"
        for backend in others.sdpa_backends():
            case = partial(_sdpa_eighth, section, shape, tokens, backend)
            section.attempt(f"{name} sdpa {backend}", case)


def _sdpa_eighth(section: Section, shape: Shape, tokens: int, backend: str) -> Row:
    heads = len(_share(shape, 1))
    groups = -(-heads // shape.group_size)
    row: Row = {"tokens": tokens, "heads": heads, "groups": groups, "peer": f"sdpa {backend}"}
    with others.recorded(row, backend):
        calls = [
            others.sdpa(
                each.q[:heads],
                each.cache.keys[:groups],
                each.cache.values[:groups],
                others.sdpa_backends()[backend],
                causal=True,
            )
            for each in _tensors(shape, tokens, section.device)
        ]
        row |= timed(calls, seconds=0.1).figures()
    return row
