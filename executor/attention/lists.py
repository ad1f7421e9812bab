"""The lists of query blocks as far as budgets decide them, of one layer or of all layers at once.

Nothing here depends on a tensor's values, so that neither choosing the blocks nor computing them
waits for the device, and both can be captured in a CUDA graph.

An engine's every step is another batch. Its tables are a few operations on columns of numbers,
however many sequences, heads and layers there are, and are copied to the device together; the
entries' own objects are made where a kernel asks for them.

Lists start longest first (Graham's LPT rule, 1969): a GPU hands the blocks of a plain
one-dimensional grid to whichever multiprocessor is free, so that the order of the grid is the whole
schedule: no queue, no persistent loop. Where a single list takes longer than a program's fair part
of everything, it is cut first (split KV: Flash-Decoding, 2023).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from executor.kernels.batch import Chunk, query_starts
from executor.kernels.dense import Apart, WholePrompt
from executor.kernels.layout import (
    ALL_PIECES,
    PACKED_ROWS,
    WHOLE,
    HeadBlocks,
    Layout,
    Parts,
    send,
)
from executor.kernels.patterns import Pattern, Rule, by_budget, strided_length

Ints = NDArray[np.int64]
LEAST_BLOCKS = 8
"""A list that reads so many times a query block's keys is not cut: reading the queries and merging
would cost more than it saves."""
Integers = NDArray[np.integer[Any]]
NOWHERE = np.iinfo(np.int32).min
"""A start that stays below all others, whatever place is added to it."""


class Lists:
    """The lists of ranges: query blocks [first, last) of a sequence, for which a head has `budget`
    pieces. All [ranges] each, those of a kind side by side, of every kind `of_kind`.

    `patterns` and their `rules` are of kinds; origin, cached and total are the sequences', as
    `token_columns` has them. Found: the table int32 [3, lists] of all lists, range after range:
    query block, length, and start from the range's first stored piece, NOWHERE for a list of every
    piece; where in it a range's lists `begin` and their `count`, the `tiles` in them, those of
    lists that leave something out without a query block's own (`gathered`), those `stored`, every
    `causal` one, and the `longest` list.
    """

    def __init__(
        self,
        patterns: Sequence[Pattern],
        rules: Ints | None,
        columns: Ints,
        block_tokens: int,
        piece_tokens: int,
    ) -> None:
        self.patterns, self.block_tokens, self.piece_tokens = patterns, block_tokens, piece_tokens
        self.budget, self.first, self.last, self.origin, self.cached, self.total = columns
        self.of_kind = columns.shape[1] // max(1, len(patterns))
        self.own, self.every = block_tokens // piece_tokens, -(-self.total // piece_tokens)
        self.count = self.last - self.first
        self.begin = self.count.cumsum() - self.count
        budget = np.minimum(np.maximum(self.budget, self.own), self.every)
        # As narrow as they may be: a long prompt has as many lists as query blocks.
        of_ranges = np.stack([self.first - self.begin, self.every, budget]).astype(np.int32)
        block, every, budget = of_ranges.repeat(self.count, 1)
        block += np.arange(len(block), dtype=np.int32)
        causal = np.minimum((block + 1) * self.own, every)
        length = np.minimum(causal, budget)
        if rules is not None:
            kind = np.arange(len(self.count)).repeat(self.count) // self.of_kind
            length = listed(causal, length, rules[kind])
        chosen = length < causal
        kept = length * chosen
        gathered = (length + self.own * block - causal) * chosen
        self.tiles, self.gathered, self.stored, self.causal = self._sums(
            np.stack([length, gathered, kept, causal])
        )
        # Of a range the last list is its longest.
        self.longest = np.append(length, 0)[self.begin + self.count - 1] * (self.count > 0)
        start = kept.cumsum() - kept - (self.stored.cumsum() - self.stored).repeat(self.count)
        start[~chosen] = NOWHERE
        self.table = np.stack([block, length, start.astype(np.int32)])

    def _sums(self, of_lists: NDArray[np.int32]) -> Ints:
        """Of columns [columns, lists] the sums over ranges, [columns, ranges]."""
        found = np.zeros((len(of_lists), len(self.count)), np.int64)
        some = self.count > 0
        if of_lists.size:
            found[:, some] = np.add.reduceat(of_lists, self.begin[some], 1, np.int64)
        return found


@dataclass(frozen=True, eq=False)
class Entries:
    """Heads that have ranges' lists: entries of layers, layer after layer, [entries] each.

    named int32 [entries, 6]: head, group, sequence and room; `range`: whose lists they have; number
    int32: an entry's place in its layer. begins [layers + 1]: where layers begin; of_layer [layers,
    kinds]: how many entries of a layer have a kind's lists of one range.
    """

    named: NDArray[np.int32]
    range: Ints
    number: NDArray[np.int32]
    begins: Ints
    of_layer: Ints

    @classmethod
    def of(cls, named: Ints, of_range: Ints, begins: Ints, of_layer: Ints) -> "Entries":
        """From named [entries, 3]."""
        room = np.zeros((len(named), 6), np.int32)
        room[:, :3] = named
        number = np.arange(len(named)) - begins[:-1].repeat(np.diff(begins))
        return cls(room, of_range, number.astype(np.int32), begins, of_layer)

    def sums(self, *columns: Ints) -> Ints:
        """Of columns [ranges] the sums over a layer's entries, [layers, columns]."""
        kinds = self.of_layer.shape[1]
        of_kind = len(columns[0]) // max(1, kinds)
        of_kinds = np.stack(columns).reshape(len(columns), kinds, of_kind).sum(2)
        found: Ints = self.of_layer @ of_kinds.T
        return found

    def heads(self, lists: Lists, layer: int) -> tuple[HeadBlocks, ...]:
        """The entries of a layer as objects."""
        mine = slice(*self.begins[layer : layer + 2])
        at = self.range[mine]
        kind, (head, group, sequence) = at // max(1, lists.of_kind), self.named[mine, :3].T
        columns = kind, head, group, lists.budget[at], lists.first[at], lists.last[at], sequence
        return tuple(
            HeadBlocks(head, group, budget, first, last, sequence, lists.patterns[kind])
            for kind, head, group, budget, first, last, sequence in zip(
                *(column.tolist() for column in columns), strict=True
            )
        )


def rules_of(patterns: Sequence[Pattern]) -> Ints | None:
    """Of patterns that say themselves how long a list is, local pieces, stride and offset, 0 of the
    others, [kinds, 3]; None where there are only others."""
    rules = [x if isinstance(x, Rule) and not by_budget(x) else None for x in patterns]
    if not any(rules):
        return None
    return np.array([(x.local_pieces, x.stride, x.offset) if x else (0,) * 3 for x in rules])


def listed(causal: Integers, found: Integers, rules: Ints) -> Integers:
    """Pieces of lists that choose among `causal` ones, as `patterns.lengths` has them, [lists]
    each: `found` by budgets, and by `rules` [lists, 3]."""
    local, stride, offset = rules.T
    ruled = strided_length(causal, local, np.maximum(stride, 1), offset)
    return np.where(stride > 0, ruled, found).astype(found.dtype)


def lay_out(
    heads: Sequence[HeadBlocks],
    chunks: Sequence[Chunk],
    block_tokens: int,
    device: torch.device | str = "cpu",
    programs: int | None = None,
    piece_tokens: int | None = None,
    pack: bool | None = None,
) -> Layout:
    """The layout of `heads` over `chunks`; queues its copies to the device and does not wait.

    `piece_tokens` divides block_tokens and is as large by default. `programs`: how many run at
    once; lists longer than one's fair part are cut. `pack`: pair heads that share a list, by
    default on a GPU while two query blocks are no more than PACKED_ROWS.
    """
    chunks = tuple(chunks)
    listed = lists_of_heads(heads, chunks, block_tokens, piece_tokens or block_tokens)
    return lay_out_layers(*listed, chunks, device, programs, pack)[0]


def lists_of_heads(
    heads: Sequence[HeadBlocks], chunks: Sequence[Chunk], block_tokens: int, piece_tokens: int
) -> tuple[Entries, Lists]:
    """The entries of one layer's `heads`, and their lists."""
    numbers = [(x.head, x.group, x.sequence, x.budget_pieces, x.first, x.last) for x in heads]
    columns = np.array(numbers, np.int64).reshape(-1, 6).T
    columns = np.concatenate([columns, token_columns(chunks)[:, columns[2]]])
    patterns = [x.pattern for x in heads]
    lists = Lists(patterns, rules_of(patterns), columns[3:], block_tokens, piece_tokens)
    every, once = np.arange(len(heads)), np.ones((1, len(heads)), np.int64)
    return Entries.of(columns[:3].T, every, np.array([0, len(heads)]), once), lists


def token_columns(chunks: Sequence[Chunk]) -> Ints:
    """Of sequences the index in q of their token 0, and their cached and total tokens, [3,
    sequences]."""
    counted = [(chunk.cached_tokens, chunk.new_tokens) for chunk in chunks]
    cached, new = np.array(counted, np.int64).reshape(-1, 2).T
    return np.stack([new.cumsum() - new - cached, cached, cached + new])


def lay_out_layers(
    entries: Entries,
    lists: Lists,
    chunks: tuple[Chunk, ...],
    device: torch.device | str = "cpu",
    programs: int | None = None,
    pack: bool | None = None,
) -> list[Layout]:
    """As `lay_out` the layouts of all layers of `entries`, which have `lists`."""
    device = torch.device(device)
    if pack is None:
        pack = device.type == "cuda" and 2 * lists.block_tokens <= PACKED_ROWS
    counted = entries.sums(lists.count, lists.tiles, lists.stored)
    table, columns = _tables(entries, lists, counted[:, 0])
    of_entries, of_lists = np.diff(entries.begins).tolist(), counted[:, 0].tolist()
    sent = [_by_layer(x, of_lists, device) for x in columns.values()]
    none = _sent(np.empty((0, 2)), device)
    of_kind = lists.longest.reshape(len(lists.patterns), lists.of_kind).max(1, initial=0)
    longest = (of_kind * (entries.of_layer > 0)).max(1, initial=0).tolist()
    of_layers = zip(_by_layer(table, of_entries, device), *sent, strict=True)
    found = []
    for layer, (tables, (_, tiles, stored)) in enumerate(
        zip(of_layers, counted.tolist(), strict=True)
    ):
        of_heads, entry, query_block, length, start, order = tables
        layout = Layout(
            partial(entries.heads, lists, layer),
            chunks,
            lists.block_tokens,
            lists.piece_tokens,
            of_heads,
            entry,
            query_block,
            length,
            start,
            order,
            pairs=none,
            tiles=tiles,
            pieces_read=tiles,
            stored=stored,
            longest=longest[layer],
        )
        found.append(layout)
    if programs is None and not pack:
        return found
    begins = np.cumsum([0, *of_lists])
    for layer, layout in enumerate(found):
        mine = {name: x[begins[layer] : begins[layer + 1]] for name, x in columns.items()}
        if programs is not None:
            layout = _cut(layout, table[entries.begins[layer] :], mine, programs)
        if pack and layout.parts is None:
            layout = _packed(layout, mine)
        found[layer] = layout
    return found


Columns = dict[str, NDArray[np.int32]]
"""Of lists, under the names and in the order that a layout has for them."""


def _tables(entries: Entries, lists: Lists, of_lists: Ints) -> tuple[NDArray[np.int32], Columns]:
    """Of all layers, which have so many lists, the entries' table and the lists' columns."""
    table = entries.named.copy()
    for place, column in enumerate((lists.origin, lists.cached, lists.total), 3):
        table[:, place] = column.astype(np.int32).take(entries.range)
    # Every entry's lists are those of its range.
    count, stored = lists.count.take(entries.range), lists.stored.take(entries.range)
    of = np.arange(len(count)).repeat(count)
    source = (lists.begin.take(entries.range) - count.cumsum() + count).take(of)
    source += np.arange(len(of))
    # Memory of their own: Triton compiles anew for tables that begin elsewhere than others.
    block, length, start = (column.take(source) for column in lists.table)
    before = np.concatenate([[0], stored.cumsum()])
    place = before[:-1] - before[entries.begins[:-1]].repeat(np.diff(entries.begins))
    start += place.astype(np.int32).take(of)
    columns = {
        "entry": entries.number.take(of),
        "query_block": block,
        "length": length,
        "start": np.maximum(start, ALL_PIECES),
        "order": _order(length, of_lists),
    }
    return table, columns


def _order(length: NDArray[np.int32], of_lists: Ints) -> NDArray[np.int32]:
    """Numbers in their layer of lists, longest first; `of_lists` [layers] each.

    Lists of equal length stay in head order, so that neighbours share their K/V in cache.
    """
    most = int(length.max(initial=0))
    # Of such small keys a stable order takes one pass.
    kind = np.uint16 if (most + 1) * len(of_lists) <= 2**16 else np.int64
    layer = (np.arange(1, len(of_lists) + 1) * (most + 1) - 1).astype(kind).repeat(of_lists)
    order = np.argsort(layer - length.astype(kind), kind="stable")
    order -= (of_lists.cumsum() - of_lists).repeat(of_lists)
    return order.astype(np.int32)


def _cut(layout: Layout, table: NDArray[np.int32], lists: Columns, programs: int) -> Layout:
    """A layout whose lists are cut where one is longer than a program's fair part."""
    if not layout.lists:
        return layout
    device, block_tokens = layout.entries.device, layout.block_tokens
    cuts = cut(lists["length"], programs, LEAST_BLOCKS * layout.per_block)
    if not (cuts[:, 3] != WHOLE).any():
        return layout
    divided = cuts[cuts[:, 3] != WHOLE]
    number, _, _, slot = divided[divided[:, 1] == 0].T
    head, _, _, origin, cached, total = table[lists["entry"][number]].T[..., None]
    tokens = lists["query_block"][number][:, None] * block_tokens + np.arange(block_tokens)
    stored = (tokens >= cached) & (tokens < total)
    parts = Parts(
        table=_sent(cuts[longest_first(cuts[:, 2])], device),
        slots=_sent(np.stack([slot, np.diff(slot, append=len(divided))], 1), device),
        heads=_sent(np.where(stored, head, -1), device),
        tokens=_sent(origin + tokens, device),
    )
    return replace(layout, longest=int(cuts[:, 2].max()), parts=parts, splits=len(divided))


def cut(length: NDArray[np.int32], programs: int, least: int) -> Ints:
    """Parts of lists of `length` [lists], [parts, 4]: list, first piece, pieces, slot.

    A list longer than its fair part of `programs`, and than `least`, becomes near-equal parts with
    consecutive slots, every other one WHOLE. List after list, a list's parts in their order.

    >>> cut(np.array([3, 20]), programs=3, least=8).tolist()
    [[0, 0, 3, -1], [1, 0, 6, 0], [1, 6, 7, 1], [1, 13, 7, 2]]
    """
    most = max(-(-int(length.sum()) // programs), least)
    parts = np.maximum(-(-length // most), 1)
    number = np.arange(len(length)).repeat(parts)
    nth = np.arange(len(number)) - (parts.cumsum() - parts)[number]
    whole, of = length.astype(np.int64)[number], parts[number]
    first = nth * whole // of
    count = (nth + 1) * whole // of - first
    slot = np.where(of > 1, (of > 1).cumsum() - 1, WHOLE)
    return np.stack([number, first, count, slot], 1)


def longest_first(length: Integers) -> Ints:
    """Numbers of what has `length` [number], longest first, equal ones in their order."""
    return np.argsort(-length, kind="stable")


def _packed(layout: Layout, lists: Columns) -> Layout:
    """A layout with pairs of its lists that are the same by rule, of one group and query block.

    Those of all pieces, and those of equal length of patterns that choose without scores. What a
    list holds follows from its entry and its query block, so that each entry's lists meet those of
    the entries before it that are still without a partner.
    """
    entry, block, length = lists["entry"], lists["query_block"], lists["length"]
    waiting: dict[object, Ints] = defaultdict(partial(np.full, block.max(initial=0) + 1, -1))
    found = [np.empty((0, 2), np.int64)]
    begins = np.searchsorted(entry, np.arange(len(layout.heads) + 1)).tolist()
    for blocks, begin, end in zip(layout.heads, begins, begins[1:], strict=False):
        number, every = np.arange(begin, end), lists["start"][begin:end] == ALL_PIECES
        group = (blocks.sequence, blocks.group)
        kinds: list[tuple[object, Ints]] = [(group, number[every])]
        if isinstance(blocks.pattern, Rule):
            # How long a list without all pieces is, where its query block does not say it.
            budgeted = by_budget(blocks.pattern)
            kept = max(blocks.budget_pieces, layout.per_block) if budgeted else None
            kinds.append(((group, blocks.pattern, kept), number[~every]))
        for kind, mine in kinds:
            partner, at = waiting[kind], block[mine]
            first = partner[at]
            met = first >= 0
            found.append(np.stack([first[met], mine[met]], 1))
            partner[at] = np.where(met, -1, mine)
    pairs = np.concatenate(found)
    if not len(pairs):
        return layout
    alone = np.ones(len(length), np.bool_)
    alone[pairs] = False
    device, order, shared = layout.entries.device, lists["order"], length[pairs[:, 0]]
    return replace(
        layout,
        order=_sent(order[alone[order]], device),
        pairs=_sent(pairs[longest_first(shared)], device),
        pieces_read=layout.tiles - int(shared.sum()),
    )


def _by_layer(
    x: NDArray[np.int32], sizes: list[int], device: torch.device
) -> tuple[torch.Tensor, ...]:
    sent = _sent(x, device)
    return sent.split_with_sizes(sizes) if len(sizes) > 1 else (sent,)


def _sent(x: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    return send(torch.from_numpy(x.astype(np.int32, copy=False)), device)


def set_apart(layout: Layout, programs: int | None = None) -> Apart | None:
    """`layout` with its whole dense heads apart; None where it has none.

    Whole: all rows of a prompt without a prefix, so that a square causal mask is right. `programs`
    as given to `lay_out`.
    """
    starts = query_starts(layout.chunks)
    together: dict[tuple[int, int], list[int]] = defaultdict(list)
    others = []
    for blocks in layout.heads:
        if _whole(blocks, layout) and not layout.stores(blocks):
            together[blocks.sequence, blocks.group].append(blocks.head)
        else:
            others.append(blocks)
    if not together:
        return None
    dense = tuple(
        WholePrompt(
            tuple(heads), group, sequence, starts[sequence], layout.chunks[sequence].total_tokens
        )
        for (sequence, group), heads in together.items()
    )
    rest = None
    if others:
        sizes = layout.block_tokens, layout.entries.device, programs, layout.piece_tokens
        rest = lay_out(others, layout.chunks, *sizes)
    return Apart(dense, rest)


def _whole(blocks: HeadBlocks, layout: Layout) -> bool:
    chunk = layout.chunks[blocks.sequence]
    last = -(-chunk.total_tokens // layout.block_tokens)
    return chunk.cached_tokens == 0 and (blocks.first, blocks.last) == (0, last)
