"""A results file as `benchmarks.gpu` writes them, of a GPU that nobody has: rates are planted.

Labelled as made up, and taken for tests alone.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu.plans import layers
from benchmarks.gpu.scene import Tile
from benchmarks.gpu.uniform_sparse import budget_for
from benchmarks.gpu.work import decode_work, prefill_work, product_work
from benchmarks.gpu_results.calls import features
from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import POOLED, Pattern, Sampled, VerticalSlash
from profiles.cost.work import FEATURES, INDEX

Row = dict[str, Any]
LABEL = "made up for a test: no GPU has measured this"
HEADS, GROUPS, DIM = 32, 8, 128
BLOCKS, LONG_BLOCKS, PIECES = Tile(64, 64), Tile(128, 128), Tile(64, 16)
PLANTED = {
    "prefill": {
        "launches": 2e-5,
        "query_blocks": 3e-8,
        "dense_tile_flops": 2e-15,
        "gathered_tile_flops": 3.5e-15,
        "sampled_flops": 2e-15,
        "scored_blocks": 1.2e-12,
        "kv_bytes": 6e-13,
        "kv_lists": 1e-7,
        "projection_flops": 1.3e-15,
    },
    "decode": {
        "launches": 8e-6,
        "query_blocks": 5e-9,
        "dense_tile_flops": 1.5e-15,
        "gathered_tile_flops": 1.5e-15,
        "scored_blocks": 2e-11,
        "kv_bytes": 2.5e-13,
        "kv_lists": 2e-8,
        "projection_flops": 1.3e-15,
    },
}
"""Seconds a unit; none is faster than an H200's data sheet."""


class MadeUp:
    """Times of calls by the planted rates, 1 % of noise around them."""

    def __init__(self, seed: int = 0) -> None:
        self._draw = np.random.default_rng(seed)

    def timed(self, work: Row, column: str = "s") -> Row:
        """Columns of a call that does `work`."""
        phase = "prefill" if work["phase"] == "projection" else work["phase"]
        rates = np.zeros(len(FEATURES))
        for name, rate in PLANTED[phase].items():
            rates[INDEX[name]] = rate
        seconds = float(features(work) @ rates * (1 + 0.01 * self._draw.standard_normal()))
        name = column.removesuffix("s")
        spread = {f"{name}p10_s": 0.99 * seconds, f"{name}p90_s": 1.01 * seconds}
        return {column: seconds, **spread, "work": {column: work}}


def prefill(
    tokens: int, budget: int, tile: Tile = BLOCKS, pattern: Pattern = POOLED, heads: int = HEADS
) -> Any:
    """As on a GPU: at blocks of 64 heads that share a list share a program."""
    group = heads // GROUPS or 1
    rows = [
        HeadBlocks(head, head // group, budget, 0, -(-tokens // tile.block), pattern=pattern)
        for head in range(heads)
    ]
    pack = tile.block == 64
    return lay_out(rows, (Chunk(0, tokens),), tile.block, piece_tokens=tile.piece, pack=pack)


def decoding(batch: int, context: int, budget: int, piece: int = 64) -> Any:
    size = HEADS // GROUPS
    lists = [
        DecodeHeads(s, s, group, tuple(range(group * size, (group + 1) * size)), budget)
        for s in range(batch)
        for group in range(GROUPS)
    ]
    return lay_out_decode(lists, -(-context // piece), piece)


def results(**changes: Any) -> Row:
    """The file's content; `changes` replace fields of `machine`."""
    made = MadeUp()
    sections = {
        "check-0": [{"case": "bf16 prefill", "ok": True}, {"case": "late", "skipped": "no time"}],
        "ceilings": _ceilings(made),
        "dense": [_dense(made, n, tile) for n in CONTEXTS for tile in (BLOCKS, LONG_BLOCKS)],
        "uniform_sparse": [*_sparse(made), _published(made), *_in_pieces(made)],
        "selection": list(_selection(made)),
        "decode": [_decode(made, batch, n, 64) for batch in (1, 4, 16) for n in CONTEXTS]
        + [_decode(made, 16, n, 16) for n in CONTEXTS],
        "headline": [_headline(made), *_shares(made)],
    }
    machine = {
        "gpu": "NVIDIA H200",
        "commit": "0123456789abcdef",
        "date": "2001-02-03T04:05:06+00:00",
        "torch": "2.11.0",
        "triton": "3.6.0",
    }
    return {
        "label": LABEL,
        "machine": machine | changes,
        "tiny": False,
        "shared": {},
        "sections": {
            name: {"section": name, "complete": True, "ended": "finished", "rows": rows}
            for name, rows in sections.items()
        },
    }


CONTEXTS = (2_048, 8_192, 32_768)
CONTEXTS_OF_PLANS = (32_768, 65_536, 131_072)


def _ceilings(made: MadeUp) -> list[Row]:
    product = made.timed(product_work(2 * 8192**3))
    tflops = 2 * 8192**3 / product["s"] / 1e12
    copy = {"case": "copy", "s": 2e-3, "bytes_per_s": 4.2e12}
    places = {"case": "programs", "programs": [33, 264], "distinct": [33, 132], "spread": True}
    return [{"case": "matrix product", **product, "tflops": tflops}, copy, places]


def _sizes(tile: Tile) -> Row:
    return {"block": tile.block, "piece": tile.piece}


def _dense(made: MadeUp, tokens: int, tile: Tile) -> Row:
    layout = prefill(tokens, tokens, tile)
    row = made.timed(prefill_work(layout, DIM, 2))
    tflops = 2 * HEADS * tokens**2 * DIM / row["s"] / 1e12
    about = {"tokens": tokens, **_sizes(tile), "page": 0, "packed": len(layout.pairs) > 0}
    return {"case": f"ours {tokens} {tile}", **about, **row, "tflops": tflops}


def _sparse(made: MadeUp) -> list[Row]:
    return [
        {
            "case": f"density {density} {tokens}",
            "tokens": tokens,
            **_sizes(BLOCKS),
            **made.timed(prefill_work(prefill(tokens, budget_for(density, tokens // 64)), DIM, 2)),
        }
        for tokens in CONTEXTS
        for density in (0.5, 0.1, 0.025)
    ]


def _published(made: MadeUp) -> Row:
    layout = prefill(109_632, 64, heads=7)
    row = made.timed(prefill_work(layout, DIM, 2))
    tflops = 4 * 64 * 64 * DIM * layout.tiles / row["s"] / 1e12
    about = {"case": "flashinfer#5326", "tokens": 109_632, **_sizes(BLOCKS)}
    return {**about, **row, "tflops": tflops}


def _in_pieces(made: MadeUp) -> Iterator[Row]:
    """Twice as slow as rates of blocks say."""
    for tokens in CONTEXTS:
        row = made.timed(prefill_work(prefill(tokens, 64, PIECES), DIM, 2))
        about = {"case": f"pieces {tokens}", "tokens": tokens, **_sizes(PIECES), "over_blocks": 2.0}
        yield {**row, "s": 2 * row["s"], **about}


def _selection(made: MadeUp) -> list[Row]:
    patterns: list[Pattern] = [POOLED, VerticalSlash(), Sampled()]
    rows = []
    for tokens in CONTEXTS:
        for pattern in patterns:
            layout = prefill(tokens, 16, pattern=pattern)
            work = prefill_work(layout, DIM, 2, attends=False, chooses=True)
            name = type(pattern).__name__
            row = made.timed(work, "select_s")
            rows.append({"case": f"{name} {tokens}", "tokens": tokens, "pattern": name, **row})
    return rows


def _decode(made: MadeUp, batch: int, context: int, piece: int) -> Row:
    about = {"batch": batch, "tokens": context, "piece": piece}
    row: Row = {"case": f"{batch} {context} {piece}", **about, "work": {}}
    for name, budget in (("dense", context // piece), ("eighth", context // piece // 8)):
        layout, contexts = decoding(batch, context, budget, piece), [context] * batch
        for column, chooses in (("s", False), ("with_selection_s", True)):
            work = decode_work(layout, contexts, DIM, 2, chooses=chooses)
            found = made.timed(work, f"{name}_{column}")
            row["work"] |= found.pop("work")
            row |= found
    row["dense_bytes_per_s"] = 4 * batch * GROUPS * context * DIM / row["dense_s"]
    return row


def _shares(made: MadeUp) -> Iterator[Row]:
    """Attention of every device of some real plans: few heads, of many KV groups or of one."""
    for layer in layers():
        if not layer.middle or layer.context_tokens != min(CONTEXTS_OF_PLANS):
            continue
        for scheme in ("adaptive greedy", "adaptive divided"):
            chunks = (Chunk(0, layer.context_tokens),)
            shares = [lay_out(heads, chunks, layer.tile.block) for heads in layer.devices[scheme]]
            works = [prefill_work(layout, DIM, 2) for layout in shares]
            yield {
                "case": f"{layer.profile} {scheme}",
                "attention_device_s": [made.timed(work)["s"] for work in works],
                "work": {"attention_device_s": works},
            }


def _headline(made: MadeUp) -> Row:
    """One of whose 3 devices has nothing to do."""
    shares = [prefill(8_192, budget, heads=8) for budget in (4, 128)]
    works = [prefill_work(layout, DIM, 2, chooses=True) for layout in shares]
    seconds = [made.timed(work)["s"] for work in works]
    return {
        "case": "made-up 8192 layer 3",
        "profile": "made-up",
        "synthetic": True,
        "tokens": 131_072,
        "layer": 3,
        "scheme": "adaptive divided",
        **_sizes(BLOCKS),
        "over_dense": 7.5,
        "over_mean": 1.02,
        "attention_over_mean": 1.01,
        "device_s": [*seconds, 0.0],
        "work": {"device_s": [*works, None]},
    }
