"""What a step does and how it runs, in numbers known before any token is."""

from collections.abc import Sequence
from dataclasses import dataclass

from executor.kernels.batch import Chunk, query_starts
from executor.kernels.decode_layout import DecodeHeads
from executor.kernels.layout import HeadRows, Layout
from executor.kernels.patterns import Pooled, Sampled, VerticalSlash, lengths
from executor.shares import HeadShare

SCORED = (Pooled, VerticalSlash, Sampled)
"""Patterns that look at every causal block before they choose; the others follow a rule."""


@dataclass(frozen=True)
class Counts:
    """Work of a step, in the units of `profiles.cost.work`.

    `sparse_tiles` are those of a prefill's heads that do not attend to everything. `scored_blocks`
    counts causal (query block, key block) pairs of heads that must choose;
    `sampled_blocks` the same for every row that a prefill's sampled heads score exactly.
    """

    query_blocks: int
    tiles: int
    sparse_tiles: int
    scored_blocks: int
    sampled_blocks: int
    decoded_blocks: int
    """Key blocks read by decodes: a packed list counts once, whatever heads share it."""


@dataclass(frozen=True)
class Schedule:
    """Features of how tiles run, for cost models that look inside a device.

    `longest_chain` is the most tiles of prefill that one program computes one after another;
    `splits` into how many pieces its long lists were cut; `kv_blocks` how many blocks of keys, and
    of values, all programs read.
    """

    tiles: int
    longest_chain: int
    splits: int
    kv_blocks: int


def count_work(
    rows: list[HeadRows],
    lists: list[DecodeHeads],
    prefill: Layout | None,
    chunks: tuple[Chunk, ...],
    block_tokens: int,
) -> Counts:
    tiles = decoded = sparse = scored = sampled = 0
    for r in rows:
        if r.budget_blocks >= _blocks(r, chunks, block_tokens):
            continue
        sparse += int(lengths(r.pattern, r.budget_blocks, r.first, r.last).sum())
        if isinstance(r.pattern, SCORED):
            pairs = r.last * (r.last + 1) // 2 - r.first * (r.first + 1) // 2
            scored += pairs
            sampled += pairs * (r.pattern.rows if isinstance(r.pattern, Sampled) else 0)
    for entry in lists:
        blocks = _blocks(entry, chunks, block_tokens)
        first, last = list_part(entry, blocks)
        tiles += len(entry.heads) * (last - first)
        decoded += last - first
        if isinstance(entry.pattern, SCORED) and entry.budget_blocks < blocks:
            scored += len(entry.heads) * blocks
    return Counts(
        query_blocks=sum(r.last - r.first for r in rows) + sum(len(e.heads) for e in lists),
        tiles=tiles + (prefill.tiles if prefill else 0),
        sparse_tiles=sparse,
        scored_blocks=scored,
        sampled_blocks=sampled,
        decoded_blocks=decoded,
    )


def list_part(entry: DecodeHeads, blocks: int) -> tuple[int, int]:
    """Places [first, last) of its list that a decoding entry computes at `blocks` key blocks."""
    length = int(lengths(entry.pattern, entry.budget_blocks, blocks - 1, blocks))
    first, last = (int(edge * length + 0.5) for edge in entry.part)
    return first, last


def _blocks(entry: HeadRows | DecodeHeads, chunks: tuple[Chunk, ...], block_tokens: int) -> int:
    return -(-chunks[entry.sequence].total_tokens // block_tokens)


def covers_every_row(
    rows: list[HeadRows],
    lists: list[DecodeHeads],
    shares: Sequence[HeadShare],
    chunks: tuple[Chunk, ...],
    block_tokens: int,
) -> bool:
    """Whether every row of heads 0.. of q is computed: ranges of a head do not overlap."""
    computed = sum(len(entry.heads) for entry in lists)
    for r in rows:
        chunk = chunks[r.sequence]
        last = min(r.last * block_tokens, chunk.total_tokens)
        computed += max(0, last - max(r.first * block_tokens, chunk.cached_tokens))
    heads = max((share.head + 1 for share in shares), default=0)
    return computed == heads * query_starts(chunks)[-1]
