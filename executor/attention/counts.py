"""What a step does and how it runs, in numbers known before any token is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from executor.kernels.batch import Chunk
from executor.kernels.decode_layout import DecodeHeads
from executor.kernels.layout import HeadBlocks, Layout
from executor.kernels.patterns import Grid, Pooled, Sampled, VerticalSlash, lengths
from profiles.sizes import causal_pieces

if TYPE_CHECKING:
    # A GPU machine that runs benchmarks has no pydantic.
    from profiles.architecture import Architecture

SCORED = (Pooled, VerticalSlash, Sampled)
"""Patterns that look at every causal piece before they choose; the others follow a rule."""


@dataclass(frozen=True)
class Counts:
    """Work of a step, in the units of `profiles.cost.work`.

    A tile is a (query block, piece of keys) product, in decode a (head, piece). `gathered_tiles`
    are those of lists that leave something out, without a query block's own pieces.
    `scored_pieces` counts causal ones of heads that must choose; `sampled_pieces` the same for
    every row that a prefill's sampled heads score exactly.
    """

    query_blocks: int
    tiles: int
    gathered_tiles: int
    scored_pieces: int
    sampled_pieces: int
    decoded_pieces: int
    """Pieces read by decodes: a packed list counts once, whatever heads share it."""


@dataclass(frozen=True)
class Schedule:
    """Features of how tiles run, for cost models that look inside a device.

    `starts` counts what programs begin anew, at a fixed cost each: a prefill's lists, or parts of
    cut ones, two packed heads' one. `longest_chain` is the most tiles of prefill that one program
    computes one after another; `splits` into how many parts its long lists were cut; `kv_pieces`
    how many pieces of keys, and of values, all programs read: two packed heads' list once.
    """

    tiles: int
    starts: int
    longest_chain: int
    splits: int
    kv_pieces: int


def count_work(
    rows: list[HeadBlocks],
    lists: list[DecodeHeads],
    prefill: Layout | None,
    chunks: tuple[Chunk, ...],
    block_tokens: int,
    piece_tokens: int,
) -> Counts:
    tiles = decoded = gathered = scored = sampled = 0
    own = block_tokens // piece_tokens
    for r in rows:
        tokens = chunks[r.sequence].total_tokens
        grid = Grid.of(tokens, block_tokens, piece_tokens)
        listed = lengths(r.pattern, r.budget_pieces, r.first, r.last, grid)
        causal = grid.causal(r.first, r.last)
        own_pieces = causal - own * torch.arange(r.first, r.last)
        gathered += int((listed - own_pieces)[listed < causal].sum())
        if isinstance(r.pattern, SCORED) and r.budget_pieces < grid.pieces:
            last, first = (causal_pieces(grid.pieces, block, own) for block in (r.last, r.first))
            scored += last - first
            sampled += (last - first) * (r.pattern.rows if isinstance(r.pattern, Sampled) else 0)
    for entry in lists:
        pieces = -(-chunks[entry.sequence].total_tokens // piece_tokens)
        first, last = list_part(entry, pieces)
        tiles += len(entry.heads) * (last - first)
        decoded += last - first
        if entry.budget_pieces >= pieces:
            continue
        gathered += len(entry.heads) * (last - first)
        if isinstance(entry.pattern, SCORED):
            scored += len(entry.heads) * pieces
    return Counts(
        query_blocks=sum(r.last - r.first for r in rows) + sum(len(e.heads) for e in lists),
        tiles=tiles + (prefill.tiles if prefill else 0),
        gathered_tiles=gathered,
        scored_pieces=scored,
        sampled_pieces=sampled,
        decoded_pieces=decoded,
    )


def attention_work(
    counts: Counts,
    architecture: "Architecture",
    piece_tokens: int,
    list_rows: int,
    computed_rows: int,
    lists: int,
    read_tokens: int,
) -> dict[str, int]:
    """What one call of attention did, in units of `profiles.cost.work.FEATURES`.

    `list_rows` query rows share a list; `computed_rows` are those of q. `lists` counts (sequence,
    KV group) pairs, and `read_tokens` the keys of them all: a prompt's whole contexts, of a decode
    its lists.
    """
    row_flops = 2 * piece_tokens * architecture.head_dim
    return {
        "launches": 1,
        "kv_lists": lists,
        "query_blocks": counts.query_blocks,
        "dense_tile_flops": 2 * list_rows * row_flops * (counts.tiles - counts.gathered_tiles),
        "gathered_tile_flops": 2 * list_rows * row_flops * counts.gathered_tiles,
        "sampled_flops": row_flops * counts.sampled_pieces,
        "scored_blocks": counts.scored_pieces,
        "kv_bytes": 2
        * (computed_rows + read_tokens)
        * architecture.head_dim
        * architecture.item_bytes,
    }


def list_part(entry: DecodeHeads, pieces: int) -> tuple[int, int]:
    """Places [first, last) of its list that a decoding entry computes at so many `pieces`."""
    grid = Grid(1, pieces)
    length = int(lengths(entry.pattern, entry.budget_pieces, pieces - 1, pieces, grid))
    first, last = (int(edge * length + 0.5) for edge in entry.part)
    return first, last
