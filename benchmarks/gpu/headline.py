"""The head-parallel headline: a layer's attention over 8 devices, each timed alone on this GPU.

The slowest device's time is the layer's. Schemes: dense; one uniform budget; adaptive budgets,
placed contiguously, greedily, by exact search, and divided. Selection is included and captured
with the attention in a CUDA graph. With recovery curves (synthetic, labelled) uniform and adaptive
budgets have equal minimum recovery, without curves equal total tiles. The aims: at least 6x over
dense at 128K; the divided plan's slowest device within 3 % of the mean.
"""

from functools import cache, partial

import torch

from benchmarks.gpu import peers
from benchmarks.gpu.plans import Layer, coarser, layers
from benchmarks.gpu.scene import PROGRAMS, Problem, Shape, Tensors, drawn, prompt_bytes
from benchmarks.gpu.section import Row, Section
from benchmarks.gpu.timing import Timed, rotation, timed
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadRows, lay_out

DIVIDED = "adaptive divided"
SAMPLES_S = 0.03


def run(section: Section) -> None:
    for number, layer in enumerate(layers(section.tiny)):
        if section.tiny and number:
            break
        name = f"{layer.profile} {layer.context_tokens} layer {layer.layer}"
        for scheme in (DIVIDED,) if section.tiny else layer.devices:
            section.attempt(f"{name} {scheme}", partial(_measured, section, layer, scheme, 1))
        if layer.context_tokens == 131_072:
            case = f"{name} {DIVIDED} in longer blocks"
            section.attempt(case, partial(_measured, section, layer, DIVIDED, 2))
        _clear()


def _measured(section: Section, layer: Layer, scheme: str, times: int) -> Row:
    """Seconds of every device; `times`: blocks so many times as long as the plan's."""
    block = layer.block_tokens * times
    dense_s, dense_peer_s = _dense(layer.shape, layer.context_tokens, section.device, section.tiny)
    shares = layer.devices[scheme][: 2 if section.tiny else None]
    if times == 2:
        shares = [coarser(heads) for heads in shares]
    whole = [_timed(layer, heads, block, section.device, choose=True) for heads in shares]
    alone = [_timed(layer, heads, block, section.device, choose=False) for heads in shares]
    seconds = [took.median_s for took, _ in whole]
    attention = [took.median_s for took, _ in alone]
    return {
        "profile": layer.profile,
        "synthetic": layer.synthetic,
        "equal": layer.equal,
        "tokens": layer.context_tokens,
        "layer": layer.layer,
        "scheme": scheme,
        "block": block,
        "kv_copies": layer.kv_copies[scheme],
        "slowest_s": max(seconds),
        "slowest_p90_s": max(took.p90_s for took, _ in whole),
        "over_mean": max(seconds) / (sum(seconds) / len(seconds)),
        "attention_slowest_s": max(attention),
        "attention_over_mean": max(attention) / (sum(attention) / len(attention)),
        "over_dense": dense_s / max(seconds),
        "over_best_dense_peer": dense_peer_s / max(seconds),
        "in_graph": all(took.graph for took, _ in whole),
        "device_s": seconds,
        "device_tiles": [tiles for _, tiles in whole],
    }


def _timed(
    layer: Layer, heads: list[HeadRows], block: int, device: torch.device, *, choose: bool
) -> tuple[Timed, int]:
    """One device's share, with or without selection, and its tiles."""
    heads = [rows for rows in heads if rows.first < rows.last]
    if not heads:
        return Timed(0.0, 0.0, 0.0, 0), 0
    chunks = (Chunk(0, layer.context_tokens),)
    layout = lay_out(heads, chunks, block, device, PROGRAMS)
    sets = [
        Problem.of(tensors, layout)
        for tensors in _tensors(layer.shape, layer.context_tokens, block, device)
    ]
    calls = [each.choose_and_attend if choose else each.attend for each in sets]
    return timed(calls, seconds=SAMPLES_S, graph=True), layout.tiles


@cache
def _tensors(shape: Shape, tokens: int, block: int, device: torch.device) -> list[Tensors]:
    """Of the whole layer; a device reads its heads' part, an eighth of it."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return [
        drawn(shape, (Chunk(0, tokens),), block, device=device, dtype=dtype, seed=seed)
        for seed in range(rotation(prompt_bytes(shape, tokens) // 8))
    ]


@cache
def _dense(shape: Shape, tokens: int, device: torch.device, tiny: bool) -> tuple[float, float]:
    """Seconds of an eighth of the layer, dense: ours at its better block size, the best peer's.

    Both compute the most heads a device has, of as few KV groups as they belong to.
    """
    heads = -(-shape.query_heads // 8)
    ours = []
    for block in (16,) if tiny else (64, 128):
        rows = -(-tokens // block)
        share = [HeadRows(head, head // shape.group_size, rows, 0, rows) for head in range(heads)]
        layout = lay_out(share, (Chunk(0, tokens),), block, device)
        calls = [
            Problem.of(tensors, layout).attend for tensors in _tensors(shape, tokens, block, device)
        ]
        ours.append(timed(calls, seconds=0.1).median_s)
    tensors = _tensors(shape, tokens, 16 if tiny else 64, device)[0]
    groups = -(-heads // shape.group_size)
    found = []
    for backend in peers.sdpa_backends().values():
        with peers.recorded({}, "sdpa"):
            call = peers.sdpa(
                tensors.q[:heads],
                tensors.cache.keys[:groups],
                tensors.cache.values[:groups],
                backend,
                causal=True,
            )
            found.append(timed([call], seconds=0.1).median_s)
    return min(ours), min(found, default=float("nan"))


def _clear() -> None:
    """Tensors of one context at a time."""
    _tensors.cache_clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
