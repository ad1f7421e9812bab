"""What a step does and how it runs, in numbers known before any token is."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from executor.attention.lists import Entries, Ints, Lists, listed, rules_of
from executor.kernels.decode_layout import DecodeHeads
from executor.kernels.patterns import Pooled, Sampled, VerticalSlash
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

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(add, vars(self).values(), vars(other).values()))


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


@dataclass(frozen=True)
class PromptWork:
    """What a layer does of prompts: `rows` of q in all; `causal_tiles` if all lists were dense."""

    counts: Counts
    rows: int
    causal_tiles: int


def count_prompts(entries: Entries, lists: Lists) -> list[PromptWork]:
    """The work of every layer of `entries`, which have `lists`."""
    block, every, own = lists.block_tokens, lists.every, lists.own
    by_rows = [x.rows if isinstance(x, Sampled) else 0 for x in lists.patterns]
    looks = np.array([[isinstance(x, SCORED) for x in lists.patterns], by_rows], np.int64)
    scores, row_scores = looks.repeat(lists.of_kind, 1)
    scored = causal_pieces(every, lists.last, own) - causal_pieces(every, lists.first, own)
    scored *= scores * (lists.budget < every)
    sampled = scored * row_scores
    rows = np.minimum(lists.last * block, lists.total)
    rows = np.maximum(rows - np.maximum(lists.first * block, lists.cached), 0)
    sums = entries.sums(
        lists.count, lists.tiles, lists.gathered, scored, sampled, rows, lists.causal
    )
    return [
        PromptWork(Counts(blocks, tiles, gathered, scored, sampled, 0), rows, causal)
        for blocks, tiles, gathered, scored, sampled, rows, causal in sums.tolist()
    ]


def count_decodes(
    lists: Sequence[DecodeHeads], context: Sequence[int] | Ints, piece_tokens: int
) -> Counts:
    """The work of `lists` whose sequences have `context` tokens [sequences]."""
    numbers = [
        (x.sequence, len(x.heads), x.budget_pieces, isinstance(x.pattern, SCORED), *x.part)
        for x in lists
    ]
    columns = np.array(numbers, np.float64).reshape(-1, 6).T
    sequence, width, budget, scores = columns[:4].astype(np.int64)
    pieces = -(-np.asarray(context, np.int64) // piece_tokens)[sequence]
    length, rules = np.minimum(pieces, budget), rules_of([entry.pattern for entry in lists])
    if rules is not None:
        length = listed(pieces, length, rules)
    first, last = (columns[4:] * length + 0.5).astype(np.int64)
    tiles, chooses = width * (last - first), budget < pieces
    scored = width * pieces * scores * chooses
    sums = np.stack([width, tiles, tiles * chooses, scored, last - first]).sum(1)
    query_blocks, computed, gathered, chosen_from, read = sums.tolist()
    return Counts(query_blocks, computed, gathered, chosen_from, 0, read)


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
