"""Dense causal prefill, 8K to 128K, at both block sizes; beside it SDPA and FlexAttention.

TFLOP/s by the usual count for causal attention, 2 * heads * tokens^2 * head_dim. Every section that
needs a dense time takes it from here: `timed_dense` measures a problem once a run.

Rows say whether two heads of a group share a program (`packed`), which at blocks of 64 those that
share a list do by themselves. What that brings stands in rows of its own: `over_alone` is the time
over that of one head a program, of dense heads, of those of one rule, and of those that score,
which share lists only where these still hold everything. A dense head among others whose lists name
pieces of 16 is gathered from those: what that costs is told as well.
"""

from functools import partial
from itertools import product

import torch

from benchmarks.gpu import peers as others
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, Problem, Shape, Tile, problems, prompt_bytes
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import Timed, rotation, timed
from benchmarks.gpu.work import prefill_work
from executor.kernels.patterns import POOLED, Pattern, Rule

TOKENS = (131_072, 32_768, 8_192, 65_536, 16_384)
TILES = (Tile(64, 64), Tile(128, 128))
GATHERED = Tile(64, 16)
PACKED: dict[str, Pattern] = {"dense": POOLED, "sink_local": Rule.sink_local(), "pooled": POOLED}
"""Heads that share programs, and the pattern of those that are not dense."""
BUDGET_TOKENS = 1_024
"""Of these; DuoAttention's streaming heads (arXiv 2410.10819) have about as many."""
FLEX_S = 45.0
"""FlexAttention compiles anew for every shape: 8 to 12 s where nothing is in the way."""


def run(section: Section) -> None:
    shape = TINY if section.tiny else LLAMA_8B
    first, later = ((64,), ()) if section.tiny else (TOKENS[:2], TOKENS[2:])
    tiles = (Tile(16, 16),) if section.tiny else TILES
    for tokens, tile in product(first, tiles):
        _both(section, shape, tokens, tile)
    for tokens, kind in product(first, PACKED):
        case = partial(_beside_alone, section, shape, tokens, kind)
        section.attempt(f"two heads {kind} {tokens}", case)
    for tokens in first:
        _both(section, shape, tokens, Tile(32, 16) if section.tiny else GATHERED)
    for tokens, tile in product(later, tiles):
        _both(section, shape, tokens, tile)


def _both(section: Section, shape: Shape, tokens: int, tile: Tile) -> None:
    """Contiguous, and in pages of a piece."""
    for page_tokens in (0, tile.piece):
        name = f"ours {tokens} {tile} {_where(page_tokens)}"
        section.attempt(name, partial(timed_dense, section, shape, tokens, tile, page_tokens))


def _where(page_tokens: int) -> str:
    return f"pages of {page_tokens}" if page_tokens else "contiguous"


def timed_dense(
    section: Section, shape: Shape, tokens: int, tile: Tile, page_tokens: int = 0
) -> Row:
    """Dense attention of one prompt by our own kernel; measured once a run."""
    heads = f"{shape.query_heads} of {shape.kv_heads} x {shape.head_dim}"
    name = f"dense {heads} {tokens} {tile} {_where(page_tokens)}"
    return section.shared(name, partial(_ours, section.device, shape, tokens, tile, page_tokens))


def dense_columns(
    section: Section, shape: Shape, tokens: int, tile: Tile
) -> tuple[float, dict[str, Row]]:
    """Seconds of `timed_dense`, and its work as a row's column `dense_s` has it."""
    found = timed_dense(section, shape, tokens, tile)
    return found["s"], {"dense_s": found["work"]["s"]}


def _ours(device: torch.device, shape: Shape, tokens: int, tile: Tile, page_tokens: int) -> Row:
    sets = _problems(device, shape, tokens, tile, page_tokens)
    took = timed([each.attend for each in sets])
    first = sets[0]
    return {
        "tokens": tokens,
        "query_heads": shape.query_heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "block": tile.block,
        "piece": tile.piece,
        "page": page_tokens,
        "packed": len(first.layout.pairs) > 0,
        **took.figures(),
        "tflops": _tflops(first, took.median_s),
        "work": {"s": prefill_work(first.layout, shape.head_dim, first.tensors.q.element_size())},
    }


def _beside_alone(section: Section, shape: Shape, tokens: int, kind: str) -> Row:
    """Two heads a program beside one."""
    tile = Tile(16, 16) if section.tiny else Tile(64, 64)
    budget = (tokens if kind == "dense" else min(BUDGET_TOKENS, tokens // 2)) // tile.piece

    def measured(pack: bool) -> tuple[Timed, Problem]:
        sets = problems(
            shape,
            tokens,
            tile,
            budget,
            device=section.device,
            sets=rotation(prompt_bytes(shape, tokens)),
            pattern=PACKED[kind],
            pack=pack,
        )
        return timed([each.attend for each in sets]), sets[0]

    (packed, first), (alone, _) = measured(pack=True), measured(pack=False)
    return {
        "tokens": tokens,
        "block": tile.block,
        "piece": tile.piece,
        "kind": kind,
        "budget_pieces": budget,
        "packed": len(first.layout.pairs) > 0,
        **packed.figures(),
        **alone.figures("alone"),
        "over_alone": packed.median_s / alone.median_s,
        "work": {"s": prefill_work(first.layout, shape.head_dim, first.tensors.q.element_size())},
    }


def peers(section: Section) -> None:
    for tokens in (64,) if section.tiny else TOKENS:
        for backend in others.sdpa_backends():
            section.attempt(f"sdpa {backend} {tokens}", partial(_sdpa, section, tokens, backend))
    # A compilation each: after what needs none.
    for tokens in (64,) if section.tiny else TOKENS:
        section.attempt(f"flex {tokens}", partial(_flex, section, tokens), FLEX_S)


def _problems(
    device: torch.device, shape: Shape, tokens: int, tile: Tile, page_tokens: int = 0
) -> list[Problem]:
    sets = rotation(prompt_bytes(shape, tokens))
    whole = -(-tokens // tile.piece)
    return problems(shape, tokens, tile, whole, device=device, sets=sets, page_tokens=page_tokens)


def _peers_problems(section: Section, tokens: int) -> list[Problem]:
    shape, tile = (TINY, Tile(16, 16)) if section.tiny else (LLAMA_8B, Tile(128, 128))
    return _problems(section.device, shape, tokens, tile)


def _sdpa(section: Section, tokens: int, backend: str) -> Row:
    sets = _peers_problems(section, tokens)
    row: Row = {"tokens": tokens, "peer": f"sdpa {backend}"}
    with others.recorded(row, backend):
        calls = [
            others.sdpa(
                each.tensors.q,
                each.tensors.cache.keys,
                each.tensors.cache.values,
                others.sdpa_backends()[backend],
                causal=True,
            )
            for each in sets
        ]
        took = timed(calls)
        row |= {**took.figures(), "tflops": _tflops(sets[0], took.median_s)}
    return row


def _flex(section: Section, tokens: int) -> Row:
    first = _peers_problems(section, tokens)[0]
    row: Row = {"tokens": tokens, "peer": "flex"}
    with others.recorded(row, "flex"):
        call = others.flex_dense(first)
        row["compile_s"] = others.first_call_s(call)
        took = timed([call])
        row |= {**took.figures(), "tflops": _tflops(first, took.median_s)}
    return row


def _tflops(problem: Problem, seconds: float) -> float:
    heads, tokens, head_dim = problem.tensors.q.shape
    return 2 * heads * tokens * tokens * head_dim / seconds / 1e12
