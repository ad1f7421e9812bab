"""What a timed call did, in counts: what rates are fitted on, kept in the rows that were timed.

A row says under "work" what each of its timed columns did, column by column:

    row = {"case": ..., "s": 0.003, "select_s": 0.0002, "work": {
        "s": prefill_work(layout, 128, 2),
        "select_s": prefill_work(layout, 128, 2, attends=False, chooses=True),
    }}

A column of several times (`device_s`) has a list of as many. Columns of peers, and of calls that
run otherwise than plans do (on a part of the multiprocessors, one head a program where two share
one), have none. Counts are raw and finer than what the cost
model regresses on today, so that rates can be fitted again when its features change: results files
stay true. Of what is no attention only the matrix product says more than its time:
`product_work`.
"""

# Parts of torch have no types for mypy to check.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Sequence
from typing import Any

from executor.kernels.decode_layout import DecodeHeads, DecodeLayout
from executor.kernels.layout import ALL_PIECES, HeadBlocks, Layout
from executor.kernels.patterns import Grid, Pooled, Sampled, VerticalSlash, lengths

Work = dict[str, Any]
SCORED = {Pooled: "pooled", VerticalSlash: "vertical_slash", Sampled: "sampled"}
"""Patterns that score every causal piece before they choose."""


def prefill_work(
    layout: Layout, head_dim: int, item_bytes: int, *, attends: bool = True, chooses: bool = False
) -> Work:
    """Counts of one call on `layout`: attention, the choice of its pieces, or both.

    A tile is a query block of `block_tokens` rows times a piece of `piece_tokens` keys. FLOPs of
    attention, 4 * head_dim a (query, key) token pair of a tile, the diagonal whole, sum to all of
    them over three kinds of tiles: `diagonal_flops` (a query block's own), `dense_flops` (the
    others of a list that holds every piece and needs no indices), `listed_flops` (those read
    through indices). `sparse_head_flops`: of all kinds, those of heads that do not attend to
    everything; `packed_flops`: of all kinds, those that programs of two heads do. `scored_pairs`:
    causal (query block, piece) pairs by pattern that choosing looks at; `sampled_pairs`: the same
    for every row scored exactly. Bytes: of queries read, of outputs written, of the K and V that
    lie in the cache for the groups present (counted once), and of all K and V that programs read.
    `longest_chain` in pieces, `splits` of cut lists.
    """
    scored, sampled = _scored(layout) if chooses else ({}, 0)
    found = {
        "phase": "prefill",
        "attends": attends,
        "chooses": chooses,
        "block_tokens": layout.block_tokens,
        "piece_tokens": layout.piece_tokens,
        "head_dim": head_dim,
        "item_bytes": item_bytes,
        "context_tokens": max((chunk.total_tokens for chunk in layout.chunks), default=0),
        "scored_pairs": scored,
        "sampled_pairs": sampled,
    }
    if not attends:
        return found
    per_tile = 4 * layout.block_tokens * layout.piece_tokens * head_dim
    length, dense = layout.length.cpu().long(), layout.start.cpu() == ALL_PIECES
    first, last = layout.own_pieces(slice(None))
    own = (last - first + 1).cpu().long()
    # A list of every pair: both are of one length.
    packed = int(length[layout.pairs[:, 0].cpu().long()].sum())
    by_head = length.split([rows.last - rows.first for rows in layout.heads])
    sparse = [
        int(lists.sum())
        for rows, lists in zip(layout.heads, by_head, strict=True)
        if rows.budget_pieces < layout.grid(rows.sequence).pieces
    ]
    groups = {(rows.sequence, rows.group) for rows in layout.heads}
    held = sum(layout.chunks[sequence].total_tokens for sequence, _ in groups)
    row_bytes = sum(_computed(layout, rows) for rows in layout.heads) * head_dim * item_bytes
    return found | {
        "lists": layout.lists,
        "groups": len(groups),
        "diagonal_flops": per_tile * int(own.sum()),
        "dense_flops": per_tile * int((length - own)[dense].sum()),
        "listed_flops": per_tile * int((length - own)[~dense].sum()),
        "sparse_head_flops": per_tile * sum(sparse),
        "packed_flops": per_tile * 2 * packed,
        "q_bytes": row_bytes,
        "out_bytes": row_bytes,
        "kv_bytes": 2 * held * head_dim * item_bytes,
        "read_bytes": 2 * layout.pieces_read * layout.piece_tokens * head_dim * item_bytes,
        "longest_chain": layout.longest,
        "splits": layout.splits,
    }


def decode_work(
    layout: DecodeLayout,
    context_tokens: Sequence[int],
    head_dim: int,
    item_bytes: int,
    *,
    attends: bool = True,
    chooses: bool = False,
) -> Work:
    """Counts of one step of `layout` at `context_tokens` by sequence, as for prefill.

    A tile is one query times a piece. `lists` counts queries, one for each head of an entry;
    `entries` what is read together. K/V bytes are those of the pieces that lists hold, once for all
    heads that share a list. A list is `dense` where it holds all pieces.
    """
    size = layout.piece_tokens
    dense = listed = read = heads = 0
    by_pattern: dict[str, int] = {}
    for entry in layout.lists:
        pieces = -(-context_tokens[entry.sequence] // size)
        part = _part(entry, pieces)
        heads, read = heads + len(entry.heads), read + part
        if entry.budget_pieces >= pieces:
            dense += len(entry.heads) * part
            continue
        listed += len(entry.heads) * part
        name = SCORED.get(type(entry.pattern))
        if chooses and name:
            by_pattern[name] = by_pattern.get(name, 0) + len(entry.heads) * pieces
    found = {
        "phase": "decode",
        "attends": attends,
        "chooses": chooses,
        "piece_tokens": size,
        "head_dim": head_dim,
        "item_bytes": item_bytes,
        "context_tokens": max(context_tokens, default=0),
        "scored_pairs": by_pattern,
        "sampled_pairs": 0,
    }
    if not attends:
        return found
    return found | {
        "lists": heads,
        "entries": len(layout.lists),
        "groups": len({(entry.sequence, entry.group) for entry in layout.lists}),
        "dense_flops": 4 * size * head_dim * dense,
        "listed_flops": 4 * size * head_dim * listed,
        "q_bytes": heads * head_dim * item_bytes,
        "out_bytes": heads * head_dim * item_bytes,
        "kv_bytes": 2 * read * size * head_dim * item_bytes,
    }


def product_work(flops: int) -> Work:
    """A matrix product's, as projections are."""
    return {"phase": "projection", "flops": flops}


def _scored(layout: Layout) -> tuple[dict[str, int], int]:
    """Scored (query block, piece) pairs by pattern, and those of sampled rows."""
    pairs: dict[str, int] = {}
    sampled = 0
    for rows in layout.heads:
        name = SCORED.get(type(rows.pattern))
        grid = layout.grid(rows.sequence)
        if name is None or rows.budget_pieces >= grid.pieces:
            continue
        causal = int(grid.causal(rows.first, rows.last).sum())
        pairs[name] = pairs.get(name, 0) + causal
        if isinstance(rows.pattern, Sampled):
            sampled += causal * rows.pattern.rows
    return pairs, sampled


def _computed(layout: Layout, rows: HeadBlocks) -> int:
    """Query tokens that an entry computes."""
    chunk, size = layout.chunks[rows.sequence], layout.block_tokens
    last = min(rows.last * size, chunk.total_tokens)
    return max(0, last - max(rows.first * size, chunk.cached_tokens))


def _part(entry: DecodeHeads, pieces: int) -> int:
    """Pieces of its list that an entry computes."""
    grid = Grid(1, pieces)
    length = int(lengths(entry.pattern, entry.budget_pieces, pieces - 1, pieces, grid))
    first, last = (int(edge * length + 0.5) for edge in entry.part)
    return last - first
